"""The parts of a corpus in preparation: what one process has encoded of one stretch of input, on disk.

    PREFIX.parts/00007-00002.part    item 7's part 2: tokens, int32 lengths, int64 token counts (V,), digests
    PREFIX.parts/00007-00002.json    what it holds; written last, so that its presence means the part is complete

A part is named by its place in the input alone, so any number of processes, started any number of times, make the same
ones, and what a killed preparation has finished is not done again.
"""

import dataclasses
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from data.cleaning import DIGEST
from data.sidecar import file_facts

_NO_DIGESTS = np.empty(0, dtype=DIGEST)


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """What PART.json says."""

    documents: int
    tokens: int
    digests: int
    """As many as documents, or 0 where none are needed."""
    sha256: str
    records: int
    """Documents and what gave none, of the input."""
    dropped: dict[str, int]
    bad: list[list[Any]]
    """[file, line, reason, detail] of the records that gave no document."""


@dataclass(frozen=True, kw_only=True)
class PartFolder:
    """PREFIX.parts of one preparation: where its parts are and how they are stored."""

    path: Path
    dtype: np.dtype
    vocab_size: int

    def stem(self, item: int, part: int) -> Path:
        return self.path / f"{item:05d}-{part:05d}"

    def finished(self, item: int, part: int) -> bool:
        """Whether the part is there, whole and unharmed."""
        stem = self.stem(item, part)
        if not stem.with_suffix(".json").exists():
            return False
        try:
            return file_facts(stem.with_suffix(".part")).sha256 == self.facts(item, part).sha256
        except (OSError, ValueError):
            return False

    def facts(self, item: int, part: int) -> PartFacts:
        """Errors: OSError, ValueError."""
        path = self.stem(item, part).with_suffix(".json")
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.keys() != {f.name for f in dataclasses.fields(PartFacts)}:
            raise ValueError(f"{path} is damaged. Delete {self.path} and prepare again")
        return PartFacts(**record)

    def count(self, item: int) -> int:
        """How many parts the item has, counted by whoever has read it to its end. Errors: OSError, ValueError."""
        return int(self._count_path(item).read_text())

    def save_count(self, item: int, number: int) -> None:
        write_atomically(self._count_path(item), str(number))

    def _count_path(self, item: int) -> Path:
        return self.path / f"{item:05d}.parts"

    def all_parts(self, num_items: int) -> Iterator[tuple[int, int]]:
        """(item, part) in the order of the input. Errors: OSError, ValueError."""
        for item in range(num_items):
            for part in range(self.count(item)):
                yield item, part

    def missing(self, num_items: int) -> str:
        """The name of a file that is not there (yet), or nothing where all parts are finished."""
        for item in range(num_items):
            if not self._count_path(item).exists():
                return self._count_path(item).name
            for part in range(self.count(item)):
                if not self.stem(item, part).with_suffix(".json").exists():
                    return f"{self.stem(item, part).name}.json"
        return ""

    def open(self, item: int, part: int) -> "Part":
        return Part(self, self.stem(item, part).with_suffix(".part"), self.facts(item, part))


class Part:
    """A finished part, mapped: tokens (N,), lengths (D,) int32, counts (V,) int64, digests (D,) of DIGEST or none."""

    def __init__(self, folder: PartFolder, path: Path, facts: PartFacts) -> None:
        self.facts = facts
        raw = np.memmap(path, dtype=np.uint8, mode="r")
        sizes = [facts.tokens * folder.dtype.itemsize, 4 * facts.documents, 8 * folder.vocab_size]
        ends = np.cumsum([*sizes, DIGEST.itemsize * facts.digests])
        if ends[-1] != len(raw):
            raise ValueError(
                f"{path} has {len(raw)} bytes instead of {ends[-1]}. Delete {folder.path} and prepare again"
            )
        self.tokens = raw[: ends[0]].view(folder.dtype)
        self.lengths = raw[ends[0] : ends[1]].view("<i4")
        self.counts = raw[ends[1] : ends[2]].view("<i8")
        self.digests = raw[ends[2] :].view(DIGEST)


@dataclass(kw_only=True)
class PartWriter:
    """One part being made; `commit` makes it a finished one.

    with PartWriter(folder=folder, item=7, part=2) as writer:
        writer.add(tokens, lengths, digests)
        writer.commit()
    """

    folder: PartFolder
    item: int
    part: int
    documents: int = 0
    tokens: int = 0
    records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    bad: list[list[Any]] = field(default_factory=list)
    bad_reasons: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> "PartWriter":
        self._path = self.folder.stem(self.item, self.part).with_suffix(".part")
        self._path.with_suffix(".json").unlink(missing_ok=True)  # of one that was damaged
        self._file = self._path.open("wb")
        self._hash = hashlib.sha256()
        self._counts = np.zeros(self.folder.vocab_size, dtype="<i8")
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._digests: list[npt.NDArray[np.void]] = []
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(
        self,
        tokens: npt.NDArray[np.integer],
        lengths: npt.NDArray[np.int64],
        digests: npt.NDArray[np.void] = _NO_DIGESTS,
    ) -> None:
        """Some documents: tokens end to end (N,) in the folder's dtype, lengths (D,), digests (D,) or none."""
        self._write(np.ascontiguousarray(tokens))
        self._counts += np.bincount(tokens, minlength=len(self._counts))
        self._lengths.append(lengths.astype("<i4"))
        self._digests.append(digests)
        self.documents += len(lengths)
        self.tokens += len(tokens)

    def drop(self, reasons: dict[str, int]) -> None:
        for reason, number in reasons.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def commit(self) -> None:
        """Errors: OSError."""
        lengths = np.concatenate([np.empty(0, dtype="<i4"), *self._lengths])
        digests = np.concatenate([_NO_DIGESTS, *self._digests])
        for array in (lengths, self._counts, digests):
            self._write(array)
        flush(self._file)
        facts = PartFacts(
            documents=self.documents,
            tokens=self.tokens,
            digests=len(digests),
            sha256=self._hash.hexdigest(),
            records=self.records,
            dropped=self.dropped,
            bad=self.bad,
        )
        write_atomically(self._path.with_suffix(".json"), json.dumps(dataclasses.asdict(facts)))

    def _write(self, array: npt.NDArray[Any]) -> None:
        data = array.view(np.uint8).data if array.size else b""
        self._file.write(data)
        self._hash.update(data)


def write_atomically(path: Path, content: str) -> None:
    """A reader sees the whole file or none, whoever else writes the same one at the same time. Errors: OSError."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # ranks of two hosts may share a process id
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(content)
            flush(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flush(file: IO[Any]) -> None:
    """To the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Everything in it, and the names, to the disk. Errors: OSError."""
    for path in (*folder.rglob("*"), folder):
        flush_path(path)


def flush_path(path: Path) -> None:
    """A file, or a folder's names, to the disk. Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
