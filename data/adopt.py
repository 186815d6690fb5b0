"""The command that makes a corpus of Megatron-LM's tools/preprocess_data.py trainable here.

    python -m data.adopt wiki_text_sentence --tokenizer bert-base-uncased
    python -m data.adopt wiki_text_sentence --tokenizer bert-base-uncased --drop 101 102 --output corpus/wiki

Reads every token once and writes PREFIX.json, PREFIX.token_counts.npy and PREFIX.tokenizer/ beside PREFIX.bin and
PREFIX.idx, which stay as they are. With --output all of it is written anew instead, one stored sequence a document.
Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 interrupted.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from command_line import parse

if TYPE_CHECKING:  # everything heavy is imported in the functions that do the work, so that --help is instant
    from data.indexed_dataset import IndexedDataset
    from data.tokenizer import Tokenizer

_BAD_INPUT = 2
_INTERRUPTED = 130
_TOKENS_AT_ONCE = 1 << 22  # bounds the memory, but for a longer document in a copy


@dataclass(frozen=True, kw_only=True)
class AdoptConfig:
    """Make a corpus that Megatron-LM's tools wrote trainable here."""

    corpus: tyro.conf.Positional[str]
    """Prefix of the corpus, such as wiki_text_sentence: PREFIX.bin and PREFIX.idx."""

    tokenizer: str
    """Tokenizer that its ids are of: a Hugging Face folder, a tokenizer.json, a vocab.txt, or the name of a model."""

    drop: tuple[int, ...] = ()
    """Ids to leave out of the copy at --output, such as those of [CLS], [SEP] or an end-of-document token."""

    output: str = ""
    """Prefix of a copy to write, instead of adopting the corpus where it is."""


def adopt(config: AdoptConfig) -> None:
    """Write what training needs to know, or a copy that has it. Errors: ValueError; OSError for files and a full disk."""
    from data.adopted_copy import write_copy
    from data.indexed_dataset import IndexedDataset
    from data.sidecar import (
        VERSION,
        FileFacts,
        Sidecar,
        SplitFacts,
        file_facts,
        save_beside,
        sidecar_path,
        write_sidecar,
    )
    from data.tokenizer import load_tokenizer

    if config.drop and not config.output:
        raise ValueError(f"--drop {config.drop[0]} changes what is stored: give the copy a name with --output PREFIX")
    prefix = config.output or config.corpus
    if sidecar_path(prefix).exists():
        raise FileExistsError(
            f"'{prefix}' is a complete corpus already ({sidecar_path(prefix)}). Write a copy: --output PREFIX"
        )
    dataset, tokenizer = IndexedDataset(config.corpus), load_tokenizer(config.tokenizer)
    _check_fit(dataset, tokenizer, config.tokenizer)
    if config.output:
        writer, dropped = write_copy(dataset, prefix, tokenizer, config.drop)
        counts, sha256, documents, tokens = (
            writer.token_counts,
            writer.bin_sha256,
            writer.num_documents,
            writer.num_tokens,
        )
        dtype = writer.dtype.name
    else:
        counts, sha256 = _count(dataset, tokenizer, config.tokenizer)
        documents, tokens, dtype, dropped = dataset.num_documents, dataset.num_tokens, dataset.dtype.name, {}
    sidecar = Sidecar(
        version=VERSION,
        tokenizer=save_beside(prefix, tokenizer, counts),
        documents=documents,
        tokens=tokens,
        dropped=dropped,
        dtype=dtype,
        bin=FileFacts(size=Path(f"{prefix}.bin").stat().st_size, sha256=sha256),
        idx=file_facts(Path(f"{prefix}.idx")),
        inputs=[Path(config.corpus).name],
        split=dataset.sidecar.split if dataset.sidecar else SplitFacts(),
    )
    write_sidecar(prefix, sidecar)
    verb = "wrote" if config.output else "adopted"
    print(f"{verb} {prefix}: {documents:,} documents, {tokens:,} tokens, stored as {dtype}")
    _report_special(tokenizer, counts)


def _check_fit(dataset: "IndexedDataset", tokenizer: "Tokenizer", name: str) -> None:
    """Refuse what cannot be this tokenizer's before the tokens are read. Errors: ValueError."""
    from data.indexed_dataset import token_dtype

    expected = token_dtype(tokenizer.vocab_size)
    if dataset.dtype.itemsize < expected.itemsize:
        raise ValueError(
            f"{dataset.index.path}: tokens are stored as {dataset.dtype.name}, but the {tokenizer.vocab_size} tokens of "
            f"--tokenizer {name} need {expected.name}: the corpus is of another vocabulary"
        )
    if dataset.num_tokens == 0:
        raise ValueError(f"{dataset.prefix} has no tokens: there is nothing to train on")


def _count(dataset: "IndexedDataset", tokenizer: "Tokenizer", name: str) -> tuple[Any, str]:
    """(how often each token occurs (V,) int64, sha256 of the .bin), having read it once. Errors: ValueError."""
    import numpy as np

    if dataset.num_tokens != len(dataset.tokens):
        raise ValueError(
            f"{dataset.prefix}.bin holds {len(dataset.tokens)} tokens, but its documents {dataset.num_tokens}: some are in "
            "no document or in several. Write a copy in order: --output PREFIX"
        )
    counts, digest = np.zeros(tokenizer.vocab_size, dtype=np.int64), hashlib.sha256()
    for start in range(0, len(dataset.tokens), _TOKENS_AT_ONCE):
        dataset.check_unchanged()
        block = dataset.tokens[start : start + _TOKENS_AT_ONCE]
        bad = np.flatnonzero((block < 0) | (block >= len(counts)))
        if bad.size:
            raise ValueError(_describe_foreign(dataset, start + int(bad[0]), len(counts), name))
        counts += np.bincount(block, minlength=len(counts))
        digest.update(block.tobytes())
    return counts, digest.hexdigest()


def _describe_foreign(dataset: "IndexedDataset", token: int, vocab_size: int, name: str) -> str:
    """Where an id outside the vocabulary stands, and what it probably is."""
    import numpy as np

    from data.index_file import blocks

    number, where, hint = int(dataset.tokens[token]), "no document", "it is another tokenizer's corpus"
    for first, last in blocks(0, dataset.num_documents):
        starts, lengths = dataset.index.locate(np.arange(first, last))
        holding = np.flatnonzero((starts <= token) & (token < starts + lengths))
        if holding.size:
            at = int(holding[0])
            where = f"token {token - starts[at]} of document {first + at}"
            if token == starts[at] + lengths[at] - 1:
                hint = f"an end-of-document token of --append-eod? A copy without it: --drop {number} --output PREFIX"
            break
    byte = token * dataset.dtype.itemsize
    return (
        f"{dataset.prefix}.bin: token id {number} at byte {byte} ({where}) is outside the vocabulary [0, {vocab_size}) of "
        f"--tokenizer {name}: {hint}"
    )


def _report_special(tokenizer: "Tokenizer", counts: Any) -> None:
    """Say which special tokens are stored, since training adds [CLS] and [SEP] itself."""
    stored = [token for token in sorted(tokenizer.special_ids - {tokenizer.unk_id}) if counts[token]]
    if not stored:
        return
    names = ", ".join(f"{counts[token]:,} {tokenizer.decode([token])} ({token})" for token in stored)
    dropping = " ".join(map(str, stored))
    print(
        f"note: {names} are stored within the text. They are read like any token, masked only where a sequence has nothing "
        "else, and training puts [CLS] and [SEP] around every sequence besides. A copy without them: "
        f"--drop {dropping} --output PREFIX"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = parse(AdoptConfig, sys.argv[1:] if arguments is None else arguments, __doc__ or "", "python -m data.adopt")
    try:
        adopt(config)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: nothing was adopted", file=sys.stderr)
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
