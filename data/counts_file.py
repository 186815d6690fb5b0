"""PREFIX.cache/MAX_LENGTH: that an .idx was found in order, and how many sequences lie before its documents.

Validating and counting read all of an .idx, 20 GB for a billion documents. The first opening of a corpus writes down what
came of it; later ones, of all processes of all machines, map that.

It is believed only while it fits the very files it was made from: their sizes, times and sha256 are its key. The time of a
file's last change (ctime) is the file system's own and survives no copy, archive or download, so a corpus from elsewhere is
validated where it arrives, whatever came along with it. Its tables are compared with their checksum when it is opened, its
pages with theirs when they are first used. And it is believed for speed alone: whatever it says, nothing outside of the
corpus's files is read, the lengths in the .idx must add up to its counts, and `data.prepare --verify` does not look at it.

Layout: header (_HEADER); int64 sequences before each block (B + 1,); uint32 CRC-32 of each page (P,); uint32 CRC-32 of all
before it; zeros up to a multiple of 4096 bytes; sequences of a block up to the end of each of its groups, uint32 or int64.
"""

import contextlib
import hashlib
import os
import struct
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.index_file import GROUP
from data.indexed_dataset import IndexedDataset, corpus_file
from data.mapped_file import MappedFile
from data.page_checks import PageChecks, page_sum
from data.sequence_counts import (
    BLOCKS_PER_PAGE,
    DOCUMENTS_PER_BLOCK,
    GROUPS_PER_BLOCK,
    NARROW,
    WIDE,
    SequenceCounts,
    count_sequences,
)

SMALLEST = 1 << 18  # entries of an .idx: fewer are validated and counted in milliseconds
_MAGIC = b"distillery count"
_VERSION = 1
_HEADER = struct.Struct("<16s32sQQBB6x")  # magic, key, documents, tokens, is_wide, is_one_to_one
_ALIGNMENT = 4096
_ABANDONED_SECONDS = 600  # after which a file that is being written is nobody's


def open_counts(dataset: IndexedDataset, max_length: int, piece: int) -> tuple[SequenceCounts, str]:
    """What an earlier opening left behind, else the index validated and counted, which is left behind for the next.

    Returns the counts and a note for the user, a sentence or empty. Errors: ValueError for an .idx that is not in order.
    """
    if max(dataset.index.num_sequences, dataset.num_documents) < SMALLEST:
        return _count(dataset, piece), ""
    file, note = CountsFile(dataset, max_length), ""
    remembered = file.read()
    if remembered is None:
        started = time.perf_counter()
        counts = _count(dataset, piece)
        what = f"{dataset.num_documents:,} documents validated and counted in {time.perf_counter() - started:.1f} s"
        note = f"{dataset.index.path}: {what}{_leave(file, counts, dataset)}"
        remembered = file.read()  # mapped, so that all processes of a machine share it
        if remembered is None:
            return counts, note
    if not dataset.is_checked:
        dataset.believe(remembered.num_tokens, remembered.is_one_to_one)
    return remembered.counts, note


def replace_counts(dataset: IndexedDataset, max_length: int, piece: int) -> tuple[SequenceCounts, str]:
    """For a file that turned out to be damaged: the counts made anew, in memory, and a note."""
    file = CountsFile(dataset, max_length)
    dataset.expect_random_reads(False)
    counts = count_sequences(dataset.index, piece)
    dataset.expect_random_reads()
    return (
        counts,
        f"{file.path} was damaged: {dataset.num_documents:,} documents counted again{_leave(file, counts, dataset)}",
    )


def _count(dataset: IndexedDataset, piece: int) -> SequenceCounts:
    if not dataset.is_checked:
        dataset.check()
    return count_sequences(dataset.index, piece)


def _leave(file: "CountsFile", counts: SequenceCounts, dataset: IndexedDataset) -> str:
    """Write the counts down; returns the rest of the note."""
    try:
        is_written = file.write(counts, dataset.num_tokens, dataset.index.is_one_to_one)
    except OSError as error:
        return f", as at every start: {file.path} cannot be written ({error.strerror or error})"
    return f"; {file.path} spares the next start that" if is_written else ""


class Remembered(NamedTuple):
    """What a counts file says."""

    counts: SequenceCounts
    num_tokens: int
    is_one_to_one: bool


class CountsFile:
    """The file for one way of cutting a corpus; nothing is read or written before it is asked to."""

    def __init__(self, dataset: IndexedDataset, max_length: int) -> None:
        self.path = corpus_file(dataset.prefix, f".cache/{max_length}")
        self._num_documents = dataset.num_documents
        self._may_be_one_to_one = dataset.num_documents == dataset.index.num_sequences
        self._num_blocks = -(-dataset.num_documents // DOCUMENTS_PER_BLOCK)
        facts = [_VERSION, GROUP, GROUPS_PER_BLOCK, BLOCKS_PER_PAGE, max_length, dataset.identity()]
        self._key = hashlib.sha256(repr(facts).encode()).digest()

    def read(self) -> Remembered | None:
        """What an earlier opening found, or None where that is missing, damaged, or about other files."""
        try:
            file = MappedFile(self.path)
        except (OSError, ValueError):  # ValueError: a folder of that size cannot be mapped
            return None
        header = file.bytes[: _HEADER.size].tobytes()
        if len(header) < _HEADER.size:
            return None
        magic, key, documents, num_tokens, is_wide, is_one_to_one = _HEADER.unpack(header)
        if (magic, key, documents) != (_MAGIC, self._key, self._num_documents):
            return None
        dtype = WIDE if is_wide else NARROW
        tables, start, size = self._layout(dtype)
        if file.size != size:
            return None
        head = file.bytes[:tables].tobytes()
        if zlib.crc32(head) != int.from_bytes(file.bytes[tables : tables + 4].tobytes(), "little"):
            return None
        before_blocks = np.frombuffer(head, "<i8", self._num_blocks + 1, _HEADER.size)
        sums = np.frombuffer(head, "<u4", offset=_HEADER.size + before_blocks.nbytes)
        if before_blocks[0] != 0 or (before_blocks[1:] < before_blocks[:-1]).any() or before_blocks[-1] > num_tokens:
            return None
        if is_one_to_one and not self._may_be_one_to_one:
            return None
        checks = PageChecks(file, start, BLOCKS_PER_PAGE * GROUPS_PER_BLOCK * dtype.itemsize, sums)
        file.prefetch(np.array([start]), np.array([size]))  # every update touches pages all over it
        counts = SequenceCounts(before_blocks, file.bytes[start:].view(dtype), checks)
        return Remembered(counts, num_tokens, bool(is_one_to_one))

    def write(self, counts: SequenceCounts, num_tokens: int, is_one_to_one: bool) -> bool:
        """Write the file; False where another process is just doing so. Readers see all of it or none. Errors: OSError."""
        self.path.parent.mkdir(exist_ok=True)
        partial = Path(f"{self.path}.partial")
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()
        try:
            file = partial.open("xb")  # one writer, though a thousand ranks may miss the file at once
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._head(counts, num_tokens, is_one_to_one))
                file.write(counts.ends.data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return True

    def _layout(self, dtype: np.dtype) -> tuple[int, int, int]:
        """Bytes up to the end of the tables, up to the counts of groups, and of the file."""
        num_pages = -(-self._num_blocks // BLOCKS_PER_PAGE)
        tables = _HEADER.size + 8 * (self._num_blocks + 1) + 4 * num_pages
        start = -(-(tables + 4) // _ALIGNMENT) * _ALIGNMENT
        return tables, start, start + self._num_blocks * GROUPS_PER_BLOCK * dtype.itemsize

    def _head(self, counts: SequenceCounts, num_tokens: int, is_one_to_one: bool) -> bytes:
        dtype = counts.ends.dtype
        tables, start, _ = self._layout(dtype)
        content, page_size = counts.ends.view(np.uint8), BLOCKS_PER_PAGE * GROUPS_PER_BLOCK * dtype.itemsize
        sums = [page_sum(content, page, page_size) for page in range(-(-len(content) // page_size))]
        head = _HEADER.pack(_MAGIC, self._key, self._num_documents, num_tokens, dtype == WIDE, is_one_to_one)
        head += counts.before_blocks.astype("<i8").tobytes() + np.array(sums, dtype="<u4").tobytes()
        assert len(head) == tables
        return (head + zlib.crc32(head).to_bytes(4, "little")).ljust(start, b"\0")
