"""The command that turns documents into a corpus, on many processes.

    python -m data.prepare --input wiki/*.jsonl.xz --tokenizer bert-base-uncased --output corpus/wiki
    python -m data.prepare --verify corpus/wiki

Writes PREFIX.bin, PREFIX.idx, PREFIX.token_counts.npy, PREFIX.tokenizer/ and, last, PREFIX.json. The files are the same,
byte for byte, for any number of workers. Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 interrupted.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from command_line import parse

# The parser needs nothing more; everything heavy is imported in the functions that do the work, so that --help is instant.
if TYPE_CHECKING:
    from data.indexed_dataset import IndexedDatasetWriter
    from data.tokenizer import Tokenizer

_BAD_INPUT = 2
_INTERRUPTED = 130  # what a shell reports for Ctrl-C


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turn documents into a corpus that train.py reads, or check one with --verify."""

    input: tuple[str, ...] = ()
    """Files of documents, .txt (separated by blank lines) or .jsonl, also with .gz, .xz or .zst."""

    tokenizer: str = ""
    """Tokenizer of the teacher: a Hugging Face folder, a tokenizer.json, a vocab.txt, or the name of a model on the hub."""

    train_vocab: int = 0
    """Train a WordPiece vocabulary of this many tokens on the input instead of giving --tokenizer."""

    output: str = ""
    """Prefix of the corpus to write, such as corpus/wiki."""

    text_field: str = "text"
    """Field of a .jsonl record that holds the text."""

    workers: int = 0
    """Processes that tokenize; 0 means one for every core."""

    overwrite: bool = False
    """Replace a complete corpus at --output."""

    verify: str = ""
    """Prefix of a corpus to check: sizes, sha256, every token and the tokenizer. Nothing is prepared."""

    def check(self) -> None:
        """Errors: ValueError naming the flag. No __post_init__, so that it is one line like every other error here."""
        if not self.input:
            raise ValueError("--input is empty, there is nothing to prepare. Give one or more .txt or .jsonl files")
        if not self.output:
            raise ValueError("--output is empty. Give the prefix of the corpus to write, such as corpus/wiki")
        if bool(self.tokenizer) == bool(self.train_vocab):
            raise ValueError(
                f"--tokenizer {self.tokenizer or '(none)'} and --train_vocab {self.train_vocab}: give exactly one of them, "
                "the teacher's tokenizer or the size of a new vocabulary"
            )
        if self.train_vocab < 0 or self.workers < 0:
            raise ValueError(f"--train_vocab {self.train_vocab} and --workers {self.workers} cannot be negative")


def prepare(config: PrepareConfig) -> None:
    """Write the corpus of `config`, whole or not at all. Errors: ValueError; OSError for files and a full disk."""
    from data.indexed_dataset import IndexedDatasetWriter
    from data.sidecar import sidecar_path
    from data.sources import check_inputs

    config.check()
    if sidecar_path(config.output).exists() and not config.overwrite:
        raise FileExistsError(
            f"'{config.output}' is a complete corpus already ({sidecar_path(config.output)}). "
            "Choose another --output, or replace it with --overwrite"
        )
    check_inputs(config.input)
    tokenizer = _tokenizer(config)
    with IndexedDatasetWriter(config.output, tokenizer.vocab_size) as writer:
        dropped, seconds = _encode_into(writer, config, tokenizer)
        if writer.num_tokens == 0:
            raise ValueError(f"the input has no text ({_described(dropped)}). Give files that contain documents")
        # From here on the old corpus, if there is one, is replaced; without its .json it does not look complete.
        sidecar_path(config.output).unlink(missing_ok=True)
        _save_beside(writer, config.output, tokenizer)
    _write_facts(writer, config, tokenizer, dropped)
    print(
        f"wrote {config.output}: {writer.num_documents:,} documents, {writer.num_tokens:,} tokens in {seconds:.1f} s "
        f"({writer.num_tokens / seconds:,.0f} tokens/s); dropped {_described(dropped)}"
    )


def _tokenizer(config: PrepareConfig) -> "Tokenizer":
    if config.tokenizer:
        from data.tokenizer import load_tokenizer

        return load_tokenizer(config.tokenizer)
    from data.sources import read_documents
    from data.train_tokenizer import train_wordpiece

    print(f"training a vocabulary of {config.train_vocab:,} tokens on the input", file=sys.stderr, flush=True)
    return train_wordpiece(read_documents(config.input, text_field=config.text_field), config.train_vocab)


def _encode_into(
    writer: "IndexedDatasetWriter", config: PrepareConfig, tokenizer: "Tokenizer"
) -> tuple[dict[str, int], float]:
    """Tokenize every document into the writer: (documents dropped by reason, seconds)."""
    from data.encoding import encode_documents
    from data.progress import ProgressReport
    from data.sources import InputProgress, read_documents

    read = InputProgress(config.input)
    report = ProgressReport(read)
    documents = read_documents(config.input, text_field=config.text_field, progress=read)
    workers = config.workers or _num_cores()
    dropped: dict[str, int] = {}
    encoded = encode_documents(documents, tokenizer, writer.dtype, workers)
    # Closed on the way out, whatever happens: its workers must not outlive an error.
    with contextlib.closing(report), contextlib.closing(encoded):
        for chunk in encoded:
            writer.add_documents(chunk.tokens, chunk.lengths)
            for reason, number in chunk.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + number
            report.update(writer.num_documents, writer.num_tokens)
    return dropped, report.seconds


def _num_cores() -> int:
    """Cores this process may use, which on a shared node are fewer than there are; macOS cannot tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _save_beside(writer: "IndexedDatasetWriter", prefix: str, tokenizer: "Tokenizer") -> None:
    """PREFIX.tokenizer/ and PREFIX.token_counts.npy."""
    import numpy as np

    from data.indexed_dataset import corpus_file

    folder = corpus_file(prefix, ".tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save(folder)
    np.save(corpus_file(prefix, ".token_counts.npy"), writer.token_counts)


def _write_facts(
    writer: "IndexedDatasetWriter", config: PrepareConfig, tokenizer: "Tokenizer", dropped: dict[str, int]
) -> None:
    """PREFIX.json, last of all: its presence says that the corpus is whole."""
    from data.indexed_dataset import corpus_file
    from data.sidecar import VERSION, FileFacts, Sidecar, SplitFacts, TokenizerFacts, file_facts, write_sidecar

    facts = TokenizerFacts(
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.mask_id,
        pad_id=tokenizer.pad_id,
        unk_id=tokenizer.unk_id,
        special_ids=sorted(tokenizer.special_ids),
        files=corpus_file(config.output, ".tokenizer").name,
    )
    bin_size = corpus_file(config.output, ".bin").stat().st_size
    sidecar = Sidecar(
        version=VERSION,
        tokenizer=facts,
        documents=writer.num_documents,
        tokens=writer.num_tokens,
        dropped=dropped,
        dtype=writer.dtype.name,
        bin=FileFacts(size=bin_size, sha256=writer.bin_sha256),
        idx=file_facts(corpus_file(config.output, ".idx")),
        inputs=[Path(path).name for path in config.input],
        split=SplitFacts(),
    )
    write_sidecar(config.output, sidecar)


def _described(dropped: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in dropped.items()) or "nothing"


def _verify(prefix: str) -> None:
    from data.verify import verify

    found = verify(prefix)
    print(f"{prefix} is intact: {found.documents:,} documents, {found.tokens:,} tokens, {found.bytes:,} bytes")


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """A batch system's SIGTERM unwinds like Ctrl-C does, so partial files and workers go away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _one_line(error: Exception, output: str) -> str:
    """Our own errors say all there is; the system's, such as a full disk, do not say which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename or output}': {error.strerror}. No corpus was written"
    return " ".join(str(error).split())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = parse(
        PrepareConfig, sys.argv[1:] if arguments is None else arguments, __doc__ or "", "python -m data.prepare"
    )
    try:
        with _terminated_like_interrupted():
            if config.verify:
                _verify(config.verify)
            else:
                prepare(config)
    except (ValueError, OSError) as error:
        print(f"error: {_one_line(error, config.output)}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: no corpus was written", file=sys.stderr)
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
