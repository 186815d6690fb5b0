"""The first step of a preparation: what the crew is to do, and what an unfinished one before it has done already."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.cleaning import normalized
from data.encoding import Job
from data.indexed_dataset import corpus_file, token_dtype
from data.parts import PartFolder, flush_folder, write_atomically
from data.prepare_config import CleaningConfig
from data.sidecar import VERSION, file_facts, sidecar_path
from data.sources import Item, SourceOptions, plan_inputs, spool_stdin
from data.tokenizer import Tokenizer, load_tokenizer
from data.train_tokenizer import train_tokenizer

PART_BYTES = 1 << 24
"""Of input in a part: four million tokens, a few seconds of work that a kill can lose."""
_MOST_PARTS = 4096  # of one input, roughly: larger ones get larger parts
_LARGEST_PART = 1 << 28  # which bounds the memory, and what a kill can lose
_PART = re.compile(r"[0-9]{5,}(-[0-9]{5,})?\.(part|json|parts)")
PUBLISHING = "publishing"
"""File in OUTPUT.parts while a finished corpus is put into its place."""


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
    folder = corpus_file(request.output, ".parts")
    is_new = not folder.exists()
    if not is_new and not (folder / "lock").is_file() and any(folder.iterdir()):
        raise FileExistsError(
            f"'{folder}' is no folder of an unfinished preparation: what is in it would be lost. Choose another --output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder, held)
    try:
        _check_outputs(request, folder)
        return _plan_in(request, folder)
    except BaseException:
        if is_new:
            remove_folder(folder)
        raise


def _check_outputs(request: Request, folder: Path) -> None:
    """
    Errors: FileExistsError where something stands in the way that was not asked to be replaced.
    """
    if (folder / PUBLISHING).exists():
        return  # it is ours: an earlier start was killed while it put the corpus into its place
    for prefix in request.outputs:
        if sidecar_path(prefix).exists() and not request.overwrite:
            raise FileExistsError(
                f"'{prefix}' is a complete corpus already ({sidecar_path(prefix)}). "
                "Choose another --output, or replace it with --overwrite"
            )
    if not request.cleaning.heldout_share and sidecar_path(request.heldout).exists():
        raise FileExistsError(
            f"'{request.heldout}' was held out of '{request.output}', which would now contain it. Remove it, give the "
            "--heldout_share it was made with, or choose another --output"
        )


def _check_inputs(files: list[str], outputs: list[str]) -> None:
    """
    Errors: ValueError where a file that is read would be replaced by what is written.
    """
    ends = (".json", ".bin", ".idx", ".token_counts.npy", ".bad.jsonl")
    written = {os.path.realpath(corpus_file(prefix, end)) for prefix in outputs for end in ends}
    for file in files:
        if os.path.realpath(file) in written:
            raise ValueError(
                f"'{file}' is an input, and --output {outputs[0]} would replace it. Choose another --output"
            )


def remove_folder(folder: Path) -> None:
    """OUTPUT.parts, its lock last, so that nobody takes it for free while the rest of it goes."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _plan_in(request: Request, folder: Path) -> Job:
    inputs = [str(spool_stdin(folder)) if name == "-" else name for name in request.inputs]
    files: list[str] = []
    items, part_bytes = _plan_items(inputs, request.sources, files)
    _check_inputs(files, request.outputs)
    reading = {
        "version": VERSION,
        "inputs": hashlib.sha256(
            "\n".join(item.identity for item in items).encode("utf-8", "surrogatepass")
        ).hexdigest(),
        "part_bytes": part_bytes,
        "sources": dataclasses.asdict(request.sources),
        "cleaning": request.cleaning.of_one_document(),
        "vocabulary": [request.tokenizer, request.vocab_type, request.train_vocab],
        "libraries": {name: version(name) for name in ("tokenizers", "sentencepiece", "pyarrow", "datasets")},
        "unicode": unicodedata.unidata_version,
    }
    known, kept = _read_plan(folder), folder / "tokenizer"
    # An earlier start may have been killed between keeping another tokenizer and saying so.
    is_kept = known.get("reading") == reading and kept.is_dir() and sha256_of_folder(kept) == known.get("tokenizer")
    tokenizer = _tokenizer(request, items, kept if is_kept else None)
    reading_and_tokenizer = {"reading": reading, "tokenizer": _keep(tokenizer, kept)}
    if known != reading_and_tokenizer:
        _discard_parts(folder, known)
        write_atomically(folder / "plan.json", json.dumps(reading_and_tokenizer, indent=2))
    parts = PartFolder(path=folder, dtype=token_dtype(tokenizer.vocab_size), vocab_size=tokenizer.vocab_size)
    return Job(
        folder=parts,
        items=items,
        tokenizer=tokenizer,
        cleaning=request.cleaning,
        max_bad_share=request.max_bad_share,
        number=uuid.uuid4().hex,
    )


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


def _plan_items(inputs: list[str], sources: SourceOptions, files: list[str]) -> tuple[list[Item], int]:
    """The items and the size of their parts, which grows with inputs so large that there would be too many.

    `files` receives the paths of all that is read.
    """
    part_bytes = PART_BYTES
    while True:
        notes: list[str] = []
        files.clear()
        items = plan_inputs(inputs, sources, part_bytes, notes, files)
        size = sum(item.size for item in items)
        if part_bytes * _MOST_PARTS >= size or part_bytes >= _LARGEST_PART:
            break
        while part_bytes * _MOST_PARTS < size and part_bytes < _LARGEST_PART:
            part_bytes *= 2
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
    if known:
        print(
            f"'{folder}' holds an unfinished preparation of other inputs or options, which is discarded",
            file=sys.stderr,
            flush=True,
        )
    for path in folder.iterdir():
        if _PART.match(path.name):
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


def _keep(tokenizer: Tokenizer, folder: Path) -> str:
    """Save the tokenizer; the sha256 of its files, which is of all that decides its tokens."""
    partial = folder.with_name("tokenizer.new")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save(partial)
    flush_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return sha256_of_folder(folder)


def sha256_of_folder(folder: Path) -> str:
    """Of the names and contents of its files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name}\0{file_facts(path).sha256}\n".encode())
    return digest.hexdigest()
