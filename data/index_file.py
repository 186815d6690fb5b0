"""PREFIX.idx, byte by byte: Megatron-LM's index of a .bin, read with suspicion and written.

b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code (4 = int32, 8 = uint16), u64 sequences S, u64 D = documents + 1,
then from byte 34: int32 lengths[S], int64 byte pointers[S], int64 document indices[D], the last equal to S

Nothing is kept in memory per document: the arrays stay in the map, which all processes of a machine share, and are checked
and added up in blocks.

Shapes: S stored sequences, D documents, N documents or groups asked for.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.mapped_file import MappedFile

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
HEADER_SIZE = HEADER.size  # 34 bytes
DTYPES: dict[int, np.dtype] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
MAX_TOKENS = 2**62  # sums of int32 lengths could pass int64; half of it leaves room for [CLS] and [SEP]
BLOCK = 1 << 18  # entries checked at once: the temporaries stay in the processor's cache
GROUP = 32  # documents whose lengths are read together: two lines of the processor's cache
_CODES = {dtype: code for code, dtype in DTYPES.items()}

Int64 = npt.NDArray[np.int64]


class Index:
    """An .idx, opened: dtype of a token; lengths (S,), pointers (S,), documents (D + 1,) as they are stored, in the map.

    The numbers are not believed before `check_index`, and never to be within the .bin. Errors: ValueError naming file and
    field; OSError.
    """

    is_one_to_one: bool = False
    """Each document is known to be one stored sequence, as ours all are: the document indices need not be read."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, MappedFile(path)
        raw = self.file.bytes
        header = raw[:HEADER_SIZE].tobytes()
        if len(header) < HEADER_SIZE or header[:9] != MAGIC:
            raise ValueError(f"{path}: magic at byte 0 is {header[:9]!r}, not {MAGIC!r}: this is no indexed dataset")
        _, version, code, num_sequences, num_indices = HEADER.unpack(header)
        if version != VERSION:
            raise ValueError(f"{path}: version at byte 9 is {version}, only {VERSION} is known")
        if code not in DTYPES:
            hint = "6 and 7 mean different floats in different forks" if code in (6, 7) else "not a token type"
            raise ValueError(f"{path}: dtype code at byte 17 is {code} ({hint}); 4 (int32) and 8 (uint16) are read")
        if num_indices < 1:
            raise ValueError(f"{path}: document count at byte 26 is 0, but it counts the documents plus one")
        # Python integers: a corrupt count cannot overflow here and pass for a small one.
        expected = HEADER_SIZE + 12 * num_sequences + 8 * num_indices
        if self.file.size != expected:
            is_multimodal = num_sequences and self.file.size == expected + num_sequences  # an int8 for each sequence
            reason = "it is of a multimodal corpus, which is not text" if is_multimodal else "truncated or corrupted"
            raise ValueError(
                f"{path}: file size is {self.file.size} bytes, but its sequence count {num_sequences} (byte 18) and "
                f"document count {num_indices} (byte 26) need {expected}: {reason}"
            )
        self.dtype = DTYPES[code]
        self._token_shift = self.dtype.itemsize.bit_length() - 1  # a shift is several times faster than a division
        self.pointers_offset = HEADER_SIZE + 4 * num_sequences
        self.documents_offset = self.pointers_offset + 8 * num_sequences
        self.lengths: npt.NDArray[np.int32] = raw[HEADER_SIZE : self.pointers_offset].view("<i4")
        self.pointers: Int64 = raw[self.pointers_offset : self.documents_offset].view("<i8")
        self.documents: Int64 = raw[self.documents_offset :].view("<i8")
        self.num_sequences, self.num_documents = num_sequences, num_indices - 1

    def locate(self, documents: Int64) -> tuple[Int64, Int64]:
        """(start in tokens, length in tokens) of documents of any shape, each of which may be several stored sequences.

        The start of a document without tokens means nothing.
        """
        if self.num_sequences == 0:
            return np.zeros_like(documents), np.zeros_like(documents)
        first, end = _take(self.documents, documents), _take(self.documents, documents + 1)
        last = np.maximum(end - 1, 0)
        starts = _take(self.pointers, first) >> self._token_shift
        ends = (_take(self.pointers, last) >> self._token_shift) + _take(self.lengths, last)
        return starts, np.where(end > first, ends - starts, 0)

    def starts(self, documents: Int64) -> Int64:
        """Starts in tokens of documents (N,) that have tokens."""
        first = documents if self.is_one_to_one else _take(self.documents, documents)
        return _take(self.pointers, first) >> self._token_shift

    def group_lengths(self, groups: Int64) -> npt.NDArray[np.integer]:
        """Tokens of the documents of each group (N,), groups being GROUP documents in order: (N, GROUP), 0 behind the last
        document. uint32, or int64 where a document may be several stored sequences.
        """
        if not self.is_one_to_one:
            documents = groups[:, None] * GROUP + np.arange(GROUP)
            inside = documents < self.num_documents
            return np.where(inside, self.locate(np.where(inside, documents, 0))[1], 0)
        complete, remainder = self._lengths_by_group
        if not len(complete):
            return np.tile(remainder, (len(groups), 1))
        lengths = complete.take(groups, mode="clip").view("<u4").reshape(-1, GROUP)
        is_last = groups >= len(complete)
        if is_last.any():
            lengths[is_last] = remainder
        return lengths

    def prefetch_group_lengths(self, groups: Int64) -> None:
        """Ask for what `group_lengths` of most corpora reads, without waiting."""
        if self.is_one_to_one:
            first = HEADER_SIZE + 4 * GROUP * groups
            self.file.prefetch(first, first + 4 * GROUP)

    def prefetch_starts(self, documents: Int64) -> None:
        """Ask for what `starts` of most corpora reads, without waiting."""
        if self.is_one_to_one:
            first = self.pointers_offset + 8 * documents
            self.file.prefetch(first, first + 8)

    @cached_property
    def _lengths_by_group(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint32]]:
        """The stored lengths of each complete group, as opaque bytes; those of the documents left, filled up with zeros."""
        complete = self.num_documents // GROUP * GROUP
        remainder = np.zeros(GROUP, dtype="<u4")
        remainder[: self.num_documents - complete] = self.lengths[complete:]
        return self.lengths[:complete].view(f"V{4 * GROUP}"), remainder


def _take(stored: npt.NDArray[np.signedinteger], at: Int64) -> npt.NDArray[np.signedinteger]:
    """stored[at], of any shape, within bounds even if the file has changed since it was checked.

    Six times faster as opaque bytes: no array of an .idx is aligned, which numpy otherwise goes about element by element.
    """
    return stored.view(f"V{stored.itemsize}").take(at, mode="clip").view(stored.dtype)


def check_index(index: Index, bin_path: Path, bin_size: int) -> int:
    """Every length, pointer and document index is possible; ValueError names the first that is not. Returns the tokens.

    Finds out `is_one_to_one`.
    """
    index.is_one_to_one = _check_documents(index)
    num_tokens = sum(_check_sequences(index, *block, bin_path, bin_size) for block in blocks(0, index.num_sequences))
    if num_tokens > MAX_TOKENS:
        raise ValueError(
            f"{index.path}: the lengths from byte {HEADER_SIZE} on add up to {num_tokens} tokens, more than {MAX_TOKENS}"
        )
    return num_tokens


def blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """[start, stop) in pieces of at most BLOCK."""
    for first in range(start, stop, BLOCK):
        yield first, min(first + BLOCK, stop)


def _check_documents(index: Index) -> bool:
    """The document indices rise from 0 to the number of sequences. Returns whether they do so one by one."""
    path, documents, offset = index.path, index.documents, index.documents_offset
    if documents[0] != 0:
        raise ValueError(f"{path}: document_indices[0] at byte {offset} is {documents[0]}, it must be 0")
    is_one_to_one = True
    for start, stop in blocks(1, len(documents)):
        values = documents[start - 1 : stop].copy()
        is_one_to_one = is_one_to_one and bool((np.diff(values) == 1).all())
        falling = np.flatnonzero(values[1:] < values[:-1])
        if falling.size:
            at = start + int(falling[0])
            raise ValueError(
                f"{path}: document_indices[{at}] at byte {offset + 8 * at} is {documents[at]}: smaller than before it"
            )
    if documents[-1] != index.num_sequences:
        raise ValueError(
            f"{path}: document_indices[{len(documents) - 1}], the last, is {documents[-1]}, "
            f"it must be the sequence count {index.num_sequences}"
        )
    return is_one_to_one


def _check_sequences(index: Index, start: int, stop: int, bin_path: Path, bin_size: int) -> int:
    """Sequences [start, stop) lie within the .bin, and each document in one piece. Returns their tokens."""
    before = min(start, 1)  # the end of the sequence before the block is needed
    lengths = index.lengths[start - before : stop].astype(np.int64)
    pointers = index.pointers[start - before : stop].copy()
    itemsize = index.dtype.itemsize

    def refuse(field: str, bad: npt.NDArray[np.bool_], values: Int64, reason: str) -> None:
        if bad.any():
            first = int(bad.argmax())
            at = start - before + first
            byte = HEADER_SIZE + 4 * at if field == "lengths" else index.pointers_offset + 8 * at
            raise ValueError(f"{index.path}: {field}[{at}] at byte {byte} is {values[first]}: {reason}")

    refuse("lengths", lengths < 0, lengths, "a length cannot be negative")
    refuse("pointers", pointers < 0, pointers, "a pointer cannot be negative")
    refuse("pointers", (pointers & (itemsize - 1)) != 0, pointers, f"not a multiple of a token's {itemsize} bytes")
    # Compared without adding to the pointer, which could overflow.
    beyond = pointers > bin_size - lengths * itemsize
    refuse("pointers", beyond, pointers, f"its sequence ends beyond {bin_path}'s {bin_size} bytes")

    torn = np.ones(stop - start + before, dtype=bool)
    torn[0] = False
    torn[1:] = pointers[1:] != pointers[:-1] + lengths[:-1] * itemsize
    for first, last in blocks(bisect_left(index.documents, start), bisect_left(index.documents, stop)):
        torn[index.documents[first:last] - (start - before)] = False  # the first of its document may lie anywhere
    reason = "the sequence before it, of the same document, ends elsewhere. Write the corpus again in document order"
    refuse("pointers", torn, pointers, reason)
    return int(lengths[before:].sum())


def header(dtype: np.dtype, num_documents: int) -> bytes:
    """The .idx's first bytes where every document is stored as one sequence."""
    return HEADER.pack(MAGIC, VERSION, _CODES[dtype], num_documents, num_documents + 1)
