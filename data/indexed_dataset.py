"""The memory-mapped corpus, reader and writer: PREFIX.bin (raw tokens) and PREFIX.idx (data/index_file.py).

The .bin holds little-endian token ids, document after document. A corpus that anyone else wrote is checked before it is
believed: every number of the .idx is validated on opening. Beside them stand PREFIX.json (data/sidecar.py) and
PREFIX.token_counts.npy.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data.index_file import DTYPES, Int64, check_index, locate_documents, read_index, write_index
from data.sidecar import Sidecar, file_facts, read_sidecar

_UINT16_VOCABULARY = 65500  # Megatron's limit: below it, ids fit 16 bits with room to spare
_VERIFIED_AT_ONCE = 1 << 22  # tokens: bounds the memory of `verify`


def corpus_file(prefix: str | Path, suffix: str) -> Path:
    """PREFIX + suffix; not Path.with_suffix, because a prefix may contain dots."""
    return Path(f"{prefix}{suffix}")


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 while the vocabulary fits (below 65,500), else int32."""
    return DTYPES[8] if vocab_size < _UINT16_VOCABULARY else DTYPES[4]


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
        self.dtype, lengths, pointers, documents = read_index(self._idx_path)
        check_index(self._idx_path, lengths, pointers, documents, self.dtype.itemsize, self._bin_path)
        self.document_starts, self.document_lengths = locate_documents(
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


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found in order."""

    documents: int
    tokens: int
    bytes: int


def verify(prefix: str | Path) -> Verified:
    """Read the whole corpus and compare it with PREFIX.json: sizes, sha256 of both files, every token id, token counts.

    Errors: ValueError naming file, document and byte offset where one is wrong; FileNotFoundError.
    """
    dataset = IndexedDataset(prefix)
    sidecar = dataset.sidecar
    if sidecar is None:
        raise ValueError(
            f"{prefix}.json is missing: there is nothing to verify {prefix}.bin against. Prepare the corpus again"
        )
    counts = np.zeros(sidecar.tokenizer.vocab_size, dtype=np.int64)
    for start in range(0, len(dataset.tokens), _VERIFIED_AT_ONCE):
        block = dataset.tokens[start : start + _VERIFIED_AT_ONCE]
        bad = np.flatnonzero((block < 0) | (block >= len(counts)))
        if bad.size:
            raise ValueError(_describe_token(dataset, start + int(bad[0]), len(counts)))
        counts += np.bincount(block, minlength=len(counts))
    for suffix, expected in ((".bin", sidecar.bin), (".idx", sidecar.idx)):
        path = corpus_file(prefix, suffix)
        found = file_facts(path)
        if found != expected:
            raise ValueError(
                f"{path}: sha256 is {found.sha256}, but {prefix}.json says {expected.sha256}: the file was changed or "
                "damaged. Copy or prepare it again"
            )
    if not np.array_equal(counts, dataset.token_counts()):
        raise ValueError(
            f"{prefix}.token_counts.npy does not count the tokens of {prefix}.bin. Prepare the corpus again"
        )
    total_bytes = sidecar.bin.size + sidecar.idx.size
    return Verified(documents=dataset.num_documents, tokens=dataset.num_tokens, bytes=total_bytes)


def _describe_token(dataset: IndexedDataset, index: int, vocab_size: int) -> str:
    ends = dataset.document_starts + dataset.document_lengths
    holding = np.flatnonzero((dataset.document_starts <= index) & (index < ends))
    document = f"document {holding[0]}" if holding.size else "no document"
    return (
        f"{dataset.prefix}.bin: token id {dataset.tokens[index]} at byte {index * dataset.dtype.itemsize} ({document}) is "
        f"outside the vocabulary [0, {vocab_size}): the file was changed or damaged. Copy or prepare it again"
    )


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
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.vocab_size):
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
            write_index(index, self.dtype, np.concatenate(self._lengths) if self._lengths else np.empty(0, dtype="<i4"))
            _flush(index)
        _flush(self._file)
        self._file.close()
        self._bin_partial.replace(corpus_file(self.prefix, ".bin"))
        self._idx_partial.replace(corpus_file(self.prefix, ".idx"))


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
