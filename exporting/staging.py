"""An export's folder is whole or absent: written under another name, and on the disk before it takes its place."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from exporting.report import is_export
from finetuning.folder import locked

LOCK = "lock"


@contextlib.contextmanager
def staged(output: Path, source: Path) -> Iterator[Path]:
    """The folder to write into; it becomes `output` at the end, unless there is an error.

    What an export that was interrupted has left is removed, or put back where it was. Errors: ValueError where `output` is
    something else than an export, is where the `source` is, or is being written by another process; OSError.
    """
    partial, old = (output.with_name(f"{output.name}{suffix}") for suffix in (".partial", ".old"))
    _check(output, source)
    is_ours = not partial.exists() or (partial / LOCK).exists() or is_export(partial) or not any(partial.iterdir())
    if not is_ours:
        raise ValueError(
            f"{partial} is needed to write {output}, and holds something else. Move it, or give another --output"
        )
    with locked(partial):
        _recover(output, partial, old)
        try:
            yield partial
        except BaseException:
            _empty(partial)
            raise
        (partial / LOCK).unlink()
        _sync(partial)
        if output.exists():
            output.rename(old)
        partial.rename(output)
        _sync_folder(output.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)


def _check(output: Path, source: Path) -> None:
    here, there = output.resolve(), source.resolve()
    if here == there or here in there.parents:
        raise ValueError(f"--output {output} holds the model of --input. Give another --output")
    if output.exists() and not (output.is_dir() and (is_export(output) or not any(output.iterdir()))):
        raise ValueError(f"--output {output} is there and is no export. Delete it, or give another --output")


def _recover(output: Path, partial: Path, old: Path) -> None:
    if old.exists() and is_export(old):
        if output.exists():
            shutil.rmtree(old)
        else:
            old.rename(output)
            print(f"{output} is back: an export was interrupted while it replaced it", flush=True)
    if any(path.name != LOCK for path in partial.iterdir()):
        print(f"{partial} of an export that was interrupted is written anew", flush=True)
    _empty(partial, but=LOCK)


def _empty(folder: Path, but: str = "") -> None:
    """All of its files, and without `but` itself."""
    for path in folder.iterdir():
        if path.name != but:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not but:
        folder.rmdir()


def _sync(folder: Path) -> None:
    """Everything in it is on the disk after this. Errors: OSError."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(file: Path) -> str:
    """sha256. Errors: OSError."""
    hashed = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            hashed.update(block)
    return hashed.hexdigest()
