"""Sequences of a corpus as arithmetic on document lengths, and their tokens packed end to end.

A document's tokens are cut into pieces of at most max_length - 2 tokens; a sequence is [CLS] piece [SEP]. Nothing is
stored per sequence or per document: the count of sequences before every 32nd document finds the rest, for any max_length.

Shapes: S sequences asked for, T their tokens, V tokens of the vocabulary.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.index_file import BLOCK, blocks
from data.indexed_dataset import IndexedDataset
from data.masking import Int64, mask_tokens, smoothed_weights
from data.sidecar import load_own_tokenizer
from data.tokenizer import Tokenizer

_GROUP = 32  # documents between two counts: a quarter of a byte a document, and little to search
assert BLOCK % _GROUP == 0


class Corpus:
    """A prepared corpus, cut for one max_length. Errors: ValueError when it cannot be trained on."""

    def __init__(self, dataset: IndexedDataset, *, max_length: int) -> None:
        if dataset.sidecar is None:
            raise ValueError(
                f"{dataset.prefix}.json is missing: the tokenizer's facts ([CLS], [SEP] and [MASK] ids, vocabulary size) "
                "and the token counts of this corpus are unknown, so it can be read but not trained on. "
                f"Prepare it with python -m data.prepare --input FILE... --tokenizer FOLDER --output {dataset.prefix}"
            )
        if max_length < 3:
            raise ValueError(f"max_length {max_length} leaves no room for text between [CLS] and [SEP]: at least 3")
        self.dataset, self.max_length = dataset, max_length
        self.tokenizer = dataset.sidecar.tokenizer
        self.vocab_size = self.tokenizer.vocab_size
        self.fingerprint = self.tokenizer.fingerprint
        self.sha256 = dataset.sidecar.bin.sha256
        self._piece = max_length - 2
        self._first_sequence = self._count_sequences()
        self.num_sequences = int(self._first_sequence[-1])
        if self.num_sequences == 0:
            raise ValueError(f"the corpus '{dataset.prefix}' has no tokens. Prepare it from files that contain text")

    @classmethod
    def open(cls, prefix: str | Path, *, max_length: int) -> "Corpus":
        """The corpus at PREFIX. Errors: FileNotFoundError, ValueError; both say what to do."""
        return cls(IndexedDataset(prefix), max_length=max_length)

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer beside the corpus, found to be the one that PREFIX.json describes. Errors: ValueError, OSError."""
        return load_own_tokenizer(self.dataset.prefix, self.tokenizer)

    def lengths(self, sequence_ids: npt.ArrayLike) -> Int64:
        """Tokens of each sequence (S,), [CLS] and [SEP] included: between 3 and max_length."""
        return self._locate(np.asarray(sequence_ids, dtype=np.int64))[1] + 2

    def packed(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64]:
        """Tokens (T,) of the sequences (S,), end to end, and their boundaries cu_seqlens (S + 1,)."""
        starts, piece_lengths = self._locate(np.asarray(sequence_ids, dtype=np.int64))
        lengths = piece_lengths + 2
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
        # Packed position p of a sequence reads token start - 1 + p: [CLS] and [SEP] read a neighbour and overwrite it.
        source = np.repeat(starts - 1 - cu_seqlens[:-1], lengths) + np.arange(cu_seqlens[-1])
        stored = np.take(self.dataset.tokens, source, mode="clip")
        tokens = stored.astype(np.int64)
        tokens[cu_seqlens[:-1]] = self.tokenizer.cls_id
        tokens[cu_seqlens[1:] - 1] = self.tokenizer.sep_id
        if int(tokens.max()) >= self.vocab_size or int(tokens.min()) < 0:
            self._refuse(tokens, source)
        return tokens, cu_seqlens

    @cached_property
    def special(self) -> npt.NDArray[np.bool_]:
        """(V,): which tokens are special."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[self.tokenizer.special_ids] = True
        return mask

    def masker(self, *, seed: int, probability: float, smoothing: float) -> "Masker":
        """`mask_tokens` with this corpus's vocabulary and token counts."""
        weights = smoothed_weights(self.dataset.token_counts(), smoothing)
        return Masker(seed, probability, weights, self.special, self.tokenizer.mask_id)

    def _locate(self, sequence_ids: Int64) -> tuple[Int64, Int64]:
        """(index of the first token in the .bin, tokens without [CLS] and [SEP]) of each sequence."""
        if sequence_ids.size and not (sequence_ids.min() >= 0 and sequence_ids.max() < self.num_sequences):
            raise ValueError(
                f"sequence ids {sequence_ids.min()} to {sequence_ids.max()} are not all within the corpus's "
                f"[0, {self.num_sequences})"
            )
        self.dataset.check_unchanged()
        # From the right: a group without tokens has no sequences and shares its count with the next one.
        group = np.searchsorted(self._first_sequence, sequence_ids, side="right") - 1
        documents = group[:, None] * _GROUP + np.arange(_GROUP)  # (S, documents of the group)
        inside = documents < self.dataset.num_documents
        starts, lengths = self.dataset.index.locate(np.where(inside, documents, 0))
        last = np.cumsum(np.where(inside, -(-lengths // self._piece), 0), axis=1)  # sequences up to each document's end
        nth = sequence_ids - self._first_sequence[group]
        row, column = np.arange(len(nth)), (last <= nth[:, None]).sum(axis=1)
        if column.max(initial=0) == _GROUP:
            raise ValueError(_changed(self.dataset))
        from_end = last[row, column] - nth
        length = lengths[row, column]
        offset = (-(-length // self._piece) - from_end) * self._piece
        start, pieces = starts[row, column] + offset, np.minimum(length - offset, self._piece)
        if (offset < 0).any() or (start < 0).any() or (start + pieces > len(self.dataset.tokens)).any():
            raise ValueError(_changed(self.dataset))
        return start, pieces

    def _count_sequences(self) -> Int64:
        """How many sequences lie before every _GROUP-th document, and in all."""
        groups = [np.zeros(1, dtype=np.int64)]
        for first, end in blocks(0, self.dataset.num_documents):
            pieces = -(-self.dataset.index.locate(np.arange(first, end))[1] // self._piece)
            groups.append(np.add.reduceat(pieces, np.arange(0, end - first, _GROUP)))
        return np.cumsum(np.concatenate(groups))

    def _refuse(self, tokens: Int64, source: Int64) -> None:
        bad = int(np.flatnonzero((tokens < 0) | (tokens >= self.vocab_size))[0])
        byte = int(source[bad]) * self.dataset.dtype.itemsize
        raise ValueError(
            f"{self.dataset.prefix}.bin: token id {tokens[bad]} at byte {byte} is outside the vocabulary "
            f"[0, {self.vocab_size}). Check the corpus: python -m data.prepare --verify {self.dataset.prefix}"
        )


def _changed(dataset: IndexedDataset) -> str:
    return (
        f"{dataset.index.path} has other numbers than when it was opened: it was written to while in use. "
        f"Check the corpus: python -m data.prepare --verify {dataset.prefix}"
    )


class Masker:
    """`mask_tokens` with everything bound that does not change between micro-batches."""

    def __init__(
        self,
        seed: int,
        probability: float,
        weights: npt.NDArray[np.float64],
        special: npt.NDArray[np.bool_],
        mask_id: int,
    ) -> None:
        self.seed, self.probability = seed, probability
        self._weights, self._special, self._mask_id = weights, special, mask_id

    def __call__(
        self, tokens: Int64, cu_seqlens: Int64, sequence_ids: Int64, epochs: Int64
    ) -> tuple[Int64, Int64, Int64]:
        """See `mask_tokens`."""
        return mask_tokens(
            tokens,
            cu_seqlens,
            sequence_ids,
            epochs,
            seed=self.seed,
            weights=self._weights,
            special=self._special,
            mask_id=self._mask_id,
            probability=self.probability,
        )
