"""Folders that a command writes: by one process at a time, and there as a whole or not at all.

Every package may use it, so it imports none of them.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LOCK = "lock"


class Product(NamedTuple):
    """What a command writes a folder of."""

    name: str
    """For people: "export"."""
    is_one: Callable[[Path], bool]
    """Whether a folder is one, of this or an earlier version."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Errors: ValueError where another process writes into it, OSError where nothing can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is being written by another process. Wait for it, stop it, or give another --output"
            ) from None
        except OSError:
            print(f"{folder} is on a file system without locks: see that nobody else writes it", flush=True)
        yield


def check_output(output: Path, product: Product, sources: Sequence[Path] = ()) -> None:
    """Before the work. Errors: ValueError where `output` is something else than a product, or holds one of the sources."""
    for source in sources:
        here, there = output.resolve(), source.resolve()
        if here == there or here in there.parents:
            raise ValueError(f"--output {output} holds {source}, which is read. Give another --output")
    if output.exists() and not (output.is_dir() and (product.is_one(output) or not any(output.iterdir()))):
        raise ValueError(f"--output {output} is there and is no {product.name}. Delete it, or give another --output")


@contextlib.contextmanager
def staged(output: Path, product: Product, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """The folder to write into; it becomes `output` at the end, on the disk to the last byte, unless there is an error.

    What was interrupted is removed, or put back where it was. Errors: those of `check_output`, ValueError where another
    process writes it, OSError.
    """
    partial, old = (output.with_name(f"{output.name}{suffix}") for suffix in (".partial", ".old"))
    check_output(output, product, sources)
    is_ours = not partial.exists() or (partial / LOCK).exists() or product.is_one(partial) or not any(partial.iterdir())
    if not is_ours:
        raise ValueError(
            f"{partial} is needed to write {output}, and holds something else. Move it, or give another --output"
        )
    with locked(partial):
        _recover(output, partial, old, product)
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
        fsync_folder(output.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover(output: Path, partial: Path, old: Path, product: Product) -> None:
    if old.exists() and product.is_one(old):
        if output.exists():
            shutil.rmtree(old)
        else:
            old.rename(output)
            print(f"{output} is back: the command that replaced it was interrupted", flush=True)
    if any(path.name != LOCK for path in partial.iterdir()):
        print(f"{partial}, which was interrupted, is written anew", flush=True)
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
        fsync_folder(path)


def fsync_folder(folder: Path) -> None:
    """The names in a folder survive a power cut only after this. Errors: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(file: Path) -> str:
    """In hex. Errors: OSError."""
    hashed = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            hashed.update(block)
    return hashed.hexdigest()
