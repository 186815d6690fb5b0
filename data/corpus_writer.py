"""Writes PREFIX.bin and PREFIX.idx in memory that does not grow with the corpus; they appear only when complete."""

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from data.index_file import HEADER_SIZE, blocks, header
from data.indexed_dataset import corpus_file, token_dtype
from data.parts import flush


class IndexedDatasetWriter:
    """Writes a corpus, one stored sequence per document.

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
        corpus_file(prefix, ".bin").parent.mkdir(parents=True, exist_ok=True)
        self._partial = {end: corpus_file(prefix, f"{end}.partial") for end in (".bin", ".idx")}
        self._bin = self._partial[".bin"].open("wb")
        self._idx = self._partial[".idx"].open("w+b")
        self._idx.seek(HEADER_SIZE)  # what it says is known last; lengths are the first thing behind it

    def __enter__(self) -> "IndexedDatasetWriter":
        return self

    def add_document(self, tokens: npt.NDArray[np.integer]) -> None:
        """Append one document (N,). Errors: ValueError for a token id outside [0, vocab_size)."""
        self.add_documents(tokens, np.array([len(tokens)]))

    def add_documents(
        self,
        tokens: npt.NDArray[np.integer],
        lengths: npt.NDArray[np.integer],
        counts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Append several documents at once: their tokens end to end (N,) and their lengths, which sum to N.

        counts (V,): how often each token occurs in them, where that is known already.
        """
        assert int(lengths.sum()) == len(tokens)
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.vocab_size):
            self._refuse(tokens, lengths)
        for first, last in blocks(0, len(tokens)):
            data = np.ascontiguousarray(tokens[first:last].astype(self.dtype, copy=False)).data
            self._bin.write(data)
            self._hash.update(data)
        self.token_counts += np.bincount(tokens, minlength=self.vocab_size) if counts is None else counts
        self._idx.write(lengths.astype("<i4").data)
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
                self._finish_index()
                for file in (self._bin, self._idx):
                    flush(file)
                    file.close()
                for end, partial in self._partial.items():
                    partial.replace(corpus_file(self.prefix, end))
        finally:
            for end, file in ((".bin", self._bin), (".idx", self._idx)):
                file.close()
                self._partial[end].unlink(missing_ok=True)

    def _finish_index(self) -> None:
        """The pointers, running sums of the lengths; the document indices, 0 to D; and the header."""
        self._idx.flush()
        with self._partial[".idx"].open("rb") as stored:
            stored.seek(HEADER_SIZE)
            start = 0
            for first, last in blocks(0, self.num_documents):
                ends = start + np.cumsum(np.frombuffer(stored.read(4 * (last - first)), dtype="<i4"), dtype="<i8")
                pointers = np.concatenate((np.array([start], dtype="<i8"), ends[:-1]))
                self._idx.write((pointers * self.dtype.itemsize).data)
                start = int(ends[-1])
        for first, last in blocks(0, self.num_documents + 1):
            self._idx.write(np.arange(first, last, dtype="<i8").data)
        self._idx.seek(0)
        self._idx.write(header(self.dtype, self.num_documents))
