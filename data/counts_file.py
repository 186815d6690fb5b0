"""PREFIX.cache/MAX_LENGTH: that an .idx was found in order, and how many sequences lie before its documents.

Validating and counting read all of an .idx, 20 GB for a billion documents. The first opening of a corpus writes down what came
of it; later ones, of all processes of all machines, map that.

It is believed only while it fits the very files it was made from: their sizes, times and sha256 are its key. The time of a
file's last change (ctime) is the file system's own and survives no copy, no archive and no download, so a corpus from elsewhere
is validated where it arrives, whatever came along with it. Its tables are checked against their checksums when it is
opened, the rest page by page when a page is first used. And it is believed for speed alone: whatever it says, nothing outside
of the corpus's files is read, the lengths in the .idx must add up to its counts, and `data.prepare --verify` does not look at it.

Layout: header (_HEADER); int64 sequences before each block (B + 1,); uint32 CRC-32 of each page (P,); uint32 CRC-32 of all before it;
zeros up to a multiple of 4096 bytes; sequences up to the end of each group (B, GROUPS_PER_BLOCK), uint32 or int64.
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
from data.page_checks import PageChecks, checksum
from data.sequence_counts import DOCUMENTS_PER_BLOCK, GROUPS_PER_BLOCK, NARROW, WIDE, SequenceCounts

SMALLEST = 1 << 18  # documents: fewer are validated and counted in a few milliseconds
_MAGIC = b"distillery count"
_VERSION = 1
_HEADER = struct.Struct("<16s32sQQBB6x")  # magic, key, documents, tokens, is_wide, is_one_to_one
_ALIGNMENT = 4096
_BLOCKS_PER_PAGE = 16  # 4 KiB, of which checking takes two microseconds
_ABANDONED_SECONDS = 600  # after which a half-written file is nobody's


class Remembered(NamedTuple):
    """What a counts file says."""

    counts: SequenceCounts
    num_tokens: int
    is_one_to_one: bool
    file: MappedFile


class CountsFile:
    """The file for one way of cutting a corpus; nothing is read or written before it is asked to."""

    def __init__(self, dataset: IndexedDataset, max_length: int) -> None:
        self.path = corpus_file(dataset.prefix, f".cache/{max_length}")
        self._num_documents = dataset.num_documents
        self._num_blocks = -(-dataset.num_documents // DOCUMENTS_PER_BLOCK)
        facts = [_VERSION, GROUP, GROUPS_PER_BLOCK, _BLOCKS_PER_PAGE, max_length, dataset.identity()]
        self._key = hashlib.sha256(repr(facts).encode()).digest()

    def read(self) -> Remembered | None:
        """What an earlier opening found, or None where that is missing, damaged, or about other files."""
        try:
            file = MappedFile(self.path)
        except OSError:
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
        head = file.bytes[: tables + 4].tobytes()
        if zlib.crc32(head[:tables]) != int.from_bytes(head[tables:], "little"):
            return None
        before_blocks = np.frombuffer(head, "<i8", self._num_blocks + 1, _HEADER.size)
        sums = np.frombuffer(head[:tables], "<u4", offset=_HEADER.size + before_blocks.nbytes)
        if before_blocks[0] != 0 or (before_blocks[1:] < before_blocks[:-1]).any():
            return None
        content = file.bytes[start:]
        checks = PageChecks(content, sums, _BLOCKS_PER_PAGE, GROUPS_PER_BLOCK * dtype.itemsize)
        counts = SequenceCounts(before_blocks, content.view(dtype), checks)
        return Remembered(counts, num_tokens, bool(is_one_to_one), file)

    def write(self, counts: SequenceCounts, num_tokens: int, is_one_to_one: bool) -> bool:
        """Remember; False where another process is just doing so. Atomic: readers see the whole file or none. Errors: OSError."""
        self.path.parent.mkdir(exist_ok=True)
        partial = Path(f"{self.path}.partial")
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()
        try:
            file = partial.open("xb")  # one writer, though a thousand ranks find the file missing at once
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
        num_pages = -(-self._num_blocks // _BLOCKS_PER_PAGE)
        tables = _HEADER.size + 8 * (self._num_blocks + 1) + 4 * num_pages
        start = -(-(tables + 4) // _ALIGNMENT) * _ALIGNMENT
        return tables, start, start + self._num_blocks * GROUPS_PER_BLOCK * dtype.itemsize

    def _head(self, counts: SequenceCounts, num_tokens: int, is_one_to_one: bool) -> bytes:
        dtype = counts.ends.dtype
        tables, start, _ = self._layout(dtype)
        content, page_size = counts.ends.view(np.uint8), _BLOCKS_PER_PAGE * GROUPS_PER_BLOCK * dtype.itemsize
        sums = [checksum(content, page, page_size) for page in range(-(-len(content) // page_size))]
        head = _HEADER.pack(_MAGIC, self._key, self._num_documents, num_tokens, dtype == WIDE, is_one_to_one)
        head += counts.before_blocks.astype("<i8").tobytes() + np.array(sums, dtype="<u4").tobytes()
        assert len(head) == tables
        return (head + zlib.crc32(head).to_bytes(4, "little")).ljust(start, b"\0")
