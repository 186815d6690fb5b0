"""The memory-mapped corpus, reader and writer: PREFIX.bin (raw tokens) and PREFIX.idx, Megatron-LM's format.

    .bin  little-endian token ids, document after document
    .idx  b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code (4 = int32, 8 = uint16), u64 sequences S, u64 D = documents + 1,
          then from byte 34: int32 lengths[S], int64 byte pointers[S], int64 document indices[D], the last equal to S

A corpus that anyone else wrote is checked before it is believed: every number of the .idx is validated on opening.
Beside them stand PREFIX.json (data/sidecar.py) and PREFIX.token_counts.npy.
"""

import hashlib
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data.sidecar import Sidecar, read_sidecar

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_SIZE = 34
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES: dict[int, np.dtype] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_UINT16_VOCABULARY = 65500  # Megatron's limit: below it, ids fit 16 bits with room to spare

Int64 = npt.NDArray[np.int64]


def corpus_file(prefix: str | Path, suffix: str) -> Path:
    """PREFIX + suffix; not Path.with_suffix, because a prefix may contain dots."""
    return Path(f"{prefix}{suffix}")


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 while the vocabulary fits (below 65,500), else int32."""
    return _DTYPES[8] if vocab_size < _UINT16_VOCABULARY else _DTYPES[4]


class IndexedDataset:
    """A corpus on disk, opened for reading; pages are read when tokens are touched.

    dtype: of a stored token. tokens (N,): the whole .bin, mapped. document_starts (documents,) int64: index into
    `tokens` of each document's first token. document_lengths (documents,) int64: its tokens. sidecar: what
    PREFIX.json says, or None where there is none (a corpus made by Megatron-LM's tools).

    Errors: FileNotFoundError for a missing file, ValueError naming file and field for anything malformed.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        self._bin_path, self._idx_path = corpus_file(prefix, ".bin"), corpus_file(prefix, ".idx")
        for path in (self._idx_path, self._bin_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"no corpus at '{prefix}' (looked for {path}). "
                    f"Prepare one: python -m data.prepare --input FILE... --tokenizer FOLDER --output {prefix}"
                )
        self.sidecar: Sidecar | None = read_sidecar(prefix)
        self._check_sizes()
        self.dtype, lengths, pointers, documents = _read_index(self._idx_path)
        _check_index(self._idx_path, lengths, pointers, documents, self.dtype.itemsize, self._bin_path)
        self.document_starts, self.document_lengths = _documents(
            self._idx_path, lengths, pointers, documents, self.dtype.itemsize
        )
        self.num_documents = len(self.document_lengths)
        self.num_tokens = int(self.document_lengths.sum())
        self.tokens = _map_tokens(self._bin_path, self.dtype)
        self._check_sidecar()

    def document_tokens(self, document: int, start: int, stop: int) -> npt.NDArray[np.integer]:
        """Tokens [start, stop) of a document: a view of the mapped file, no copy."""
        assert 0 <= start <= stop <= self.document_lengths[document]
        first = int(self.document_starts[document])
        return self.tokens[first + start : first + stop]

    def token_counts(self) -> Int64:
        """How often each token occurs, (V,) int64, from PREFIX.token_counts.npy. Errors: ValueError, FileNotFoundError."""
        path = corpus_file(self.prefix, ".token_counts.npy")
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: masking needs the token counts. Prepare the corpus again with python -m data.prepare"
            )
        try:
            counts = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is not a readable .npy file ({error}). Prepare the corpus again") from error
        vocab_size = self.sidecar.tokenizer.vocab_size if self.sidecar else counts.size
        if counts.shape != (vocab_size,) or counts.dtype.kind not in "iu":
            raise ValueError(
                f"{path} holds {counts.dtype} of shape {counts.shape}, but {self.prefix}.json says the vocabulary has "
                f"{vocab_size} tokens. Prepare the corpus again"
            )
        return counts.astype(np.int64)

    def _check_sizes(self) -> None:
        """A file cut short by a copy is named here, before its numbers are read."""
        if self.sidecar is None:
            return
        for path, expected in ((self._idx_path, self.sidecar.idx.size), (self._bin_path, self.sidecar.bin.size)):
            if path.stat().st_size != expected:
                raise ValueError(
                    f"{path} has {path.stat().st_size} bytes, but {self.prefix}.json says {expected}: an incomplete copy? "
                    "Copy or prepare it again"
                )

    def _check_sidecar(self) -> None:
        if self.sidecar is None:
            return
        for field, found, expected in (
            ("dtype", self.dtype.name, self.sidecar.dtype),
            ("documents", self.num_documents, self.sidecar.documents),
            ("tokens", self.num_tokens, self.sidecar.tokens),
        ):
            if found != expected:
                raise ValueError(
                    f"{self._idx_path}: {field} is {found}, but {self.prefix}.json says {expected}. They belong to "
                    "different corpora; prepare the corpus again"
                )


def _map_tokens(path: Path, dtype: np.dtype) -> npt.NDArray[np.integer]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    # A plain array over the map: np.memmap's own class makes every small slice several times slower.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _read_index(path: Path) -> tuple[np.dtype, npt.NDArray[np.int32], Int64, Int64]:
    """Header and the three arrays of an .idx: (token dtype, lengths (S,), pointers (S,), document indices (D,))."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    if len(header) < HEADER_SIZE or header[:9] != MAGIC:
        raise ValueError(f"{path}: magic at byte 0 is {header[:9]!r}, not {MAGIC!r}: this is no indexed dataset")
    _, version, code, num_sequences, num_indices = _HEADER.unpack(header)
    if version != VERSION:
        raise ValueError(f"{path}: version at byte 9 is {version}, only {VERSION} is known")
    if code not in _DTYPES:
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
    return _DTYPES[code], lengths, pointers, np.asarray(raw[pointers_end:]).view("<i8")


def _check_index(
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


def _documents(
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


class IndexedDatasetWriter:
    """Writes a corpus, one stored sequence per document, and makes it visible only when it is complete.

        with IndexedDatasetWriter("corpus/wiki", vocab_size=30522) as writer:
            writer.add_document(tokens)

    Everything goes to PREFIX.bin.partial and PREFIX.idx.partial; leaving the block without an exception renames them,
    leaving it with one deletes them. Afterwards `token_counts` (V,), `num_documents`, `num_tokens` and `bin_sha256`
    describe what was written.
    """

    def __init__(self, prefix: str | Path, vocab_size: int) -> None:
        self.prefix, self.vocab_size = str(prefix), vocab_size
        self.dtype = token_dtype(vocab_size)
        self.token_counts = np.zeros(vocab_size, dtype=np.int64)
        self.num_documents = self.num_tokens = 0
        self._hash = hashlib.sha256()
        self._lengths: list[npt.NDArray[np.int32]] = []
        corpus_file(prefix, ".bin").parent.mkdir(parents=True, exist_ok=True)
        self._bin_partial, self._idx_partial = (corpus_file(prefix, f"{end}.partial") for end in (".bin", ".idx"))
        self._file: BinaryIO = self._bin_partial.open("wb")

    def __enter__(self) -> "IndexedDatasetWriter":
        return self

    def add_document(self, tokens: npt.NDArray[np.integer]) -> None:
        """Append one document (N,). Errors: ValueError for a token id outside [0, vocab_size)."""
        self.add_documents(tokens, np.array([len(tokens)]))

    def add_documents(self, tokens: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> None:
        """Append several documents at once: their tokens end to end (N,) and their lengths, which sum to N."""
        assert int(lengths.sum()) == len(tokens)
        if len(tokens) and not (0 <= int(tokens.min()) and int(tokens.max()) < self.vocab_size):
            self._refuse(tokens, lengths)
        data = np.ascontiguousarray(tokens.astype(self.dtype, copy=False))
        self._file.write(data.data)
        self._hash.update(data.data)
        self.token_counts += np.bincount(data, minlength=self.vocab_size)
        self._lengths.append(lengths.astype("<i4"))
        self.num_documents += len(lengths)
        self.num_tokens += len(tokens)

    def _refuse(self, tokens: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> None:
        first = int(np.flatnonzero((tokens < 0) | (tokens >= self.vocab_size))[0])
        ends = np.cumsum(lengths)
        document = int(np.searchsorted(ends, first, side="right"))
        position = first - int(ends[document] - lengths[document])
        raise ValueError(
            f"token id {tokens[first]} at position {position} of document {self.num_documents + document} is outside the "
            f"vocabulary [0, {self.vocab_size}): it was made by another tokenizer"
        )

    @property
    def bin_sha256(self) -> str:
        return self._hash.hexdigest()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._close()
        finally:
            self._file.close()
            self._bin_partial.unlink(missing_ok=True)
            self._idx_partial.unlink(missing_ok=True)

    def _close(self) -> None:
        with self._idx_partial.open("wb") as index:
            self._write_index(index)
            _flush(index)
        _flush(self._file)
        self._file.close()
        self._bin_partial.replace(corpus_file(self.prefix, ".bin"))
        self._idx_partial.replace(corpus_file(self.prefix, ".idx"))

    def _write_index(self, index: BinaryIO) -> None:
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, dtype="<i4")
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        pointers = np.concatenate((np.zeros(1, dtype=np.int64), ends))[: len(lengths)]
        index.write(_HEADER.pack(MAGIC, VERSION, _CODES[self.dtype], len(lengths), len(lengths) + 1))
        for array in (lengths, pointers.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8")):
            index.write(array.data)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
