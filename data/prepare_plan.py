"""The first step of a preparation: what the crew is to do, and what an unfinished one before it has done already."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.cleaning import normalized
from data.encoding import Job
from data.indexed_dataset import corpus_file, token_dtype
from data.parts import PartFolder, write_atomically
from data.prepare_config import CleaningConfig
from data.sidecar import VERSION, file_facts, sidecar_path
from data.sources import Item, SourceOptions, plan_inputs, spool_stdin
from data.tokenizer import Tokenizer, load_tokenizer
from data.train_tokenizer import train_tokenizer

PART_BYTES = 1 << 24
"""Of input in a part: four million tokens, a few seconds of work that a kill can lose."""
_MOST_PARTS = 4096  # of one input, roughly: larger ones get larger parts


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to prepare, checked."""

    inputs: tuple[str, ...]
    sources: SourceOptions
    tokenizer: str
    """Its folder, file or name; empty where one is to be trained."""
    train_vocab: int
    vocab_type: str
    cleaning: CleaningConfig
    max_bad_share: float
    output: str
    overwrite: bool

    @property
    def heldout(self) -> str:
        """Prefix of the held-out corpus."""
        return f"{self.output}-heldout"

    @property
    def outputs(self) -> list[str]:
        return [self.output, self.heldout] if self.cleaning.heldout_share else [self.output]


def plan(request: Request, held: contextlib.ExitStack) -> Job:
    """What the crew is to do, and OUTPUT.parts to do it in, locked for as long as `held` is open.

    Errors: ValueError; OSError, FileExistsError for a complete corpus that is not to be replaced.
    """
    for prefix in request.outputs:
        if sidecar_path(prefix).exists() and not request.overwrite:
            raise FileExistsError(
                f"'{prefix}' is a complete corpus already ({sidecar_path(prefix)}). "
                "Choose another --output, or replace it with --overwrite"
            )
    folder = corpus_file(request.output, ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder, held)
    try:
        return _plan_in(request, folder)
    except BaseException:
        if not any(folder.glob("*.part")):  # nothing that the next try could go on with
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _plan_in(request: Request, folder: Path) -> Job:
    inputs = [str(spool_stdin(folder)) if name == "-" else name for name in request.inputs]
    items, part_bytes = _plan_items(inputs, request.sources)
    reading = {
        "version": VERSION,
        "inputs": hashlib.sha256("\n".join(item.identity for item in items).encode()).hexdigest(),
        "part_bytes": part_bytes,
        "sources": dataclasses.asdict(request.sources),
        "cleaning": request.cleaning.of_one_document(),
        "vocabulary": [request.tokenizer, request.vocab_type, request.train_vocab],
        "libraries": {name: version(name) for name in ("tokenizers", "sentencepiece")},
    }
    known = _read_plan(folder)
    is_known = known.get("reading") == reading
    tokenizer = _tokenizer(request, items, folder / "tokenizer" if is_known else None)
    reading_and_tokenizer = {"reading": reading, "tokenizer": _saved_sha256(tokenizer, folder / "tokenizer")}
    if known != reading_and_tokenizer:
        _discard_parts(folder, known)
        write_atomically(folder / "plan.json", json.dumps(reading_and_tokenizer, indent=2))
    parts = PartFolder(path=folder, dtype=token_dtype(tokenizer.vocab_size), vocab_size=tokenizer.vocab_size)
    job = Job(
        folder=parts, items=items, tokenizer=tokenizer, cleaning=request.cleaning, max_bad_share=request.max_bad_share
    )
    job.stop_file.unlink(missing_ok=True)
    return job


def _lock(folder: Path, held: contextlib.ExitStack) -> None:
    """
    Errors: FileExistsError while another process prepares there.
    """
    file = held.enter_context((folder / "lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(
            f"another process is preparing a corpus in '{folder}'. Wait for it, or choose another --output"
        ) from None
    except OSError:
        print(
            f"'{folder}' is on a file system without locks: see that nobody else writes it", file=sys.stderr, flush=True
        )


def _plan_items(inputs: list[str], sources: SourceOptions) -> tuple[list[Item], int]:
    """The items and the size of their parts, which grows with inputs so large that there would be too many."""
    notes: list[str] = []
    items = plan_inputs(inputs, sources, PART_BYTES, notes)
    size = sum(item.size for item in items)
    part_bytes = PART_BYTES
    while part_bytes * _MOST_PARTS < size:
        part_bytes *= 2
    if part_bytes > PART_BYTES:
        notes = []
        items = plan_inputs(inputs, sources, part_bytes, notes)
    for note in notes:
        print(note, file=sys.stderr, flush=True)
    return items, part_bytes


def _read_plan(folder: Path) -> dict[str, Any]:
    """What an unfinished preparation was to do; empty where there is none."""
    try:
        known = json.loads((folder / "plan.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _discard_parts(folder: Path, known: dict[str, Any]) -> None:
    found = [path for path in folder.iterdir() if path.suffix in (".part", ".json", ".parts", ".partial")]
    if known:
        print(
            f"'{folder}' holds an unfinished preparation of other inputs or options, which is discarded",
            file=sys.stderr,
            flush=True,
        )
    for path in found:
        path.unlink()


def _tokenizer(request: Request, items: list[Item], kept: Path | None) -> Tokenizer:
    """The one that is named, or trained now, or trained by the unfinished preparation."""
    if request.tokenizer:
        return load_tokenizer(request.tokenizer)
    if kept is not None and kept.is_dir():
        return load_tokenizer(str(kept))
    print(
        f"training a {request.vocab_type} vocabulary of {request.train_vocab:,} tokens on the input",
        file=sys.stderr,
        flush=True,
    )
    return train_tokenizer(request.vocab_type, _texts(items, request.cleaning), request.train_vocab)


def _texts(items: list[Item], cleaning: CleaningConfig) -> Iterator[str]:
    for item in items:
        for _, documents in item.parts(lambda part: True, lambda read: None):
            assert documents is not None
            for document in documents:
                if isinstance(document, str):
                    yield normalized([document], cleaning.normalize)[0]


def _saved_sha256(tokenizer: Tokenizer, folder: Path) -> str:
    """Save the tokenizer; the sha256 of its files, which is of all that decides its tokens."""
    partial = folder.with_name("tokenizer.new")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save(partial)
    digest = hashlib.sha256()
    for path in sorted(partial.iterdir()):
        digest.update(f"{path.name}\0{file_facts(path).sha256}\n".encode())
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return digest.hexdigest()
