"""PREFIX.idx, byte by byte: Megatron-LM's index of a .bin, read with suspicion and written.

b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code (4 = int32, 8 = uint16), u64 sequences S, u64 D = documents + 1,
then from byte 34: int32 lengths[S], int64 byte pointers[S], int64 document indices[D], the last equal to S
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
HEADER_SIZE = HEADER.size  # 34 bytes
DTYPES: dict[int, np.dtype] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

Int64 = npt.NDArray[np.int64]


def read_index(path: Path) -> tuple[np.dtype, npt.NDArray[np.int32], Int64, Int64]:
    """Header and the three arrays of an .idx: (token dtype, lengths (S,), pointers (S,), document indices (D,))."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
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
    if size != expected:
        raise ValueError(
            f"{path}: file size is {size} bytes, but its sequence count {num_sequences} (byte 18) and document count "
            f"{num_indices} (byte 26) need {expected}: truncated or corrupted"
        )
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    lengths_end = HEADER_SIZE + 4 * num_sequences
    pointers_end = lengths_end + 8 * num_sequences
    lengths = np.asarray(raw[HEADER_SIZE:lengths_end]).view("<i4")
    pointers = np.asarray(raw[lengths_end:pointers_end]).view("<i8")
    return DTYPES[code], lengths, pointers, np.asarray(raw[pointers_end:]).view("<i8")


def check_index(
    path: Path, lengths: npt.NDArray[np.int32], pointers: Int64, documents: Int64, itemsize: int, bin_path: Path
) -> None:
    """Every length, pointer and document index is possible; ValueError names the first that is not."""
    num_sequences, bin_size = len(lengths), bin_path.stat().st_size
    pointers_offset = HEADER_SIZE + 4 * num_sequences
    documents_offset = pointers_offset + 8 * num_sequences

    def refuse(field: str, bad: npt.NDArray[np.bool_], values: npt.NDArray, offset: int, reason: str) -> None:
        if bad.any():
            first = int(bad.argmax())
            at = offset + first * values.itemsize
            raise ValueError(f"{path}: {field}[{first}] at byte {at} is {values[first]}: {reason}")

    refuse("lengths", lengths < 0, lengths, HEADER_SIZE, "a length cannot be negative")
    refuse("pointers", pointers < 0, pointers, pointers_offset, "a pointer cannot be negative")
    misaligned = pointers % itemsize != 0
    refuse("pointers", misaligned, pointers, pointers_offset, f"not a multiple of a token's {itemsize} bytes")
    # Compared without adding to the pointer, which could overflow.
    beyond = pointers > bin_size - lengths.astype(np.int64) * itemsize
    refuse("pointers", beyond, pointers, pointers_offset, f"its sequence ends beyond {bin_path}'s {bin_size} bytes")

    if documents[0] != 0:
        raise ValueError(f"{path}: document_indices[0] at byte {documents_offset} is {documents[0]}, it must be 0")
    decreasing = np.concatenate(([False], documents[1:] < documents[:-1]))
    refuse("document_indices", decreasing, documents, documents_offset, "smaller than the one before it")
    if documents[-1] != num_sequences:
        raise ValueError(
            f"{path}: document_indices[{len(documents) - 1}], the last, is {documents[-1]}, "
            f"it must be the sequence count {num_sequences}"
        )


def locate_documents(
    path: Path, lengths: npt.NDArray[np.int32], pointers: Int64, documents: Int64, itemsize: int
) -> tuple[Int64, Int64]:
    """(start in tokens, length in tokens) of each document, which may be several consecutive stored sequences."""
    cumulative = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    document_lengths = cumulative[documents[1:]] - cumulative[documents[:-1]]
    starts = pointers // itemsize

    continues = np.ones(max(len(lengths), 1), dtype=bool)  # does sequence i belong to the document of i - 1?
    continues[documents[:-1][documents[:-1] < len(lengths)]] = False
    torn = np.flatnonzero(continues[1 : len(lengths)] & (starts[1:] != starts[:-1] + lengths[:-1]))
    if torn.size:
        sequence = int(torn[0]) + 1
        raise ValueError(
            f"{path}: pointers[{sequence}] is {pointers[sequence]}, but the sequence before it, of the same document, ends "
            f"elsewhere. Documents must lie in one piece: write the corpus again in document order"
        )
    # A document without sequences may point one past the last; its start is never read.
    padded = np.append(starts, 0)
    return padded[documents[:-1]], document_lengths


def write_index(file: BinaryIO, dtype: np.dtype, lengths: npt.NDArray[np.integer]) -> None:
    """The .idx of documents that lie end to end in the .bin, each stored as one sequence of the given length."""
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    pointers = np.concatenate((np.zeros(1, dtype="<i8"), ends))[: len(lengths)]
    file.write(HEADER.pack(MAGIC, VERSION, _CODES[dtype], len(lengths), len(lengths) + 1))
    for array in (lengths.astype("<i4"), pointers, np.arange(len(lengths) + 1, dtype="<i8")):
        file.write(np.ascontiguousarray(array).data)
