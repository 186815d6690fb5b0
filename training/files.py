"""Files that are whole or absent: written, fsynced, renamed, and the folder fsynced, so that no crash leaves half of one.

A failed fsync is never tried again: the kernel may have dropped the pages and would report success the second time.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from folders import fsync_folder

_BLOCK = 1 << 22  # bytes hashed or written at once, without holding the interpreter


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and sha256 of a file."""

    size: int
    sha256: str


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Appears whole or not at all. Errors: OSError."""
    partial = path.with_name(path.name + ".partial")
    write_blocks(partial, [json.dumps(content, indent=2).encode() + b"\n"])
    os.replace(partial, path)
    fsync_folder(path.parent)


def write_blocks(path: Path, blocks: Iterable[Any]) -> FileFacts:
    """Buffers end to end into a new file, on the disk when this returns, hashed on the way. Errors: OSError."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block).cast("B")
            for start in range(0, len(view), _BLOCK):
                piece = view[start : start + _BLOCK]
                digest.update(piece)
                written = 0
                while written < len(piece):  # a write may be partial
                    written += file.write(piece[written:])
            size += len(view)
        os.fsync(file.fileno())
    return FileFacts(size, digest.hexdigest())


def reads_back(path: Path, blocks: Iterable[Any]) -> bool:
    """Whether a file holds these buffers, as far as possible read from the disk: four times as fast as hashing it."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for block in blocks:
            view = np.frombuffer(block, dtype=np.uint8)
            for start in range(0, len(view), _BLOCK):
                piece = view[start : start + _BLOCK]
                if not np.array_equal(piece, np.frombuffer(file.read(len(piece)), dtype=np.uint8)):
                    return False
        return not file.read(1)


class LineFile:
    """Lines appended to a file. A full disk ends no run: lines wait in memory until there is room again."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn, self._waiting, self._has_failed = path, warn, b"", False
        self._file = path.open("ab", buffering=0)

    def append(self, line: str) -> None:
        """`line` without its end."""
        self._waiting += line.encode() + b"\n"
        try:
            self._write()
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True  # first: warning may append to this very file
                self._warn(f"warning: {self._path} cannot be written ({error}); its lines wait in memory")

    def sync(self) -> None:
        """On the disk when this returns. Errors: OSError."""
        self._write()
        os.fsync(self._file.fileno())

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        self._file.close()


def read_facts(path: Path) -> FileFacts:
    """Of a file as it is on the disk: what the page cache may drop is dropped first. Errors: OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = 0
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return FileFacts(size, digest.hexdigest())


def fsync_files(folder: Path) -> None:
    """The files in a folder, which somebody else wrote, and their names. Errors: OSError."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)


def rename(old: Path, new: Path, attempts: int = 5) -> None:
    """`old` becomes `new`, and a reader sees it. Errors: OSError.

    A network file system may lose the answer to a rename that it carried out, or answer from a cache: what counts is whether
    the new name is there.
    """
    for attempt in range(attempts):
        try:
            os.rename(old, new)
            break
        except OSError:
            if new.exists() and not old.exists():
                break
            if attempt == attempts - 1:
                raise
            time.sleep(0.1 * 2**attempt)
    fsync_folder(new.parent)
    if not new.exists():
        raise FileNotFoundError(f"{new} is not there although {old} was renamed to it")
