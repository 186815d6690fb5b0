"""Sequences of a corpus as arithmetic on document lengths, and their tokens packed end to end.

A document's tokens are cut into pieces of at most max_length - 2 tokens; a sequence is [CLS] piece [SEP]. Nothing is
stored per sequence or per document: counts of the sequences before every 32nd document find the rest, for any max_length.

Shapes: S sequences asked for, T their tokens, V tokens of the vocabulary.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.counts_file import open_counts, replace_counts
from data.index_file import GROUP
from data.indexed_dataset import IndexedDataset
from data.mapped_file import disk_reads
from data.masking import Int64, Masker, smoothed_weights
from data.page_checks import DamagedPageError
from data.sequence_counts import pieces_of
from data.sidecar import load_own_tokenizer
from data.tokenizer import Tokenizer

_LONGEST_PIECE = 2**31 - 1  # tokens: the most that an .idx can say of one stored sequence
_AT_ONCE = 256  # sequences located together: their groups' lengths stay in the processor's cache


class Corpus:
    """A prepared corpus, cut for one max_length. Errors: ValueError when it cannot be trained on.

    note: what a user should know about how it was opened, a sentence; empty where there is nothing to say.
    """

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
        self.index_sha256 = dataset.sidecar.idx.sha256
        self._piece = min(max_length - 2, _LONGEST_PIECE)
        self._counts, self.note = open_counts(dataset, max_length, self._piece)
        dataset.expect_random_reads()
        # Whether what was wanted last was not in memory; then what is wanted next is asked for together.
        self._are_lengths_cold = self._is_text_cold = True
        self.num_sequences = self._counts.num_sequences
        if self.num_sequences == 0:
            raise ValueError(f"the corpus '{dataset.prefix}' has no tokens. Prepare it from files that contain text")

    @classmethod
    def open(cls, prefix: str | Path, *, max_length: int) -> "Corpus":
        """The corpus at PREFIX. Errors: FileNotFoundError, ValueError; both say what to do."""
        return cls(IndexedDataset(prefix, check=False), max_length=max_length)

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer beside the corpus, found to be the one that PREFIX.json describes. Errors: ValueError, OSError."""
        return load_own_tokenizer(self.dataset.prefix, self.tokenizer)

    def lengths(self, sequence_ids: npt.ArrayLike) -> Int64:
        """Tokens of each sequence (S,), [CLS] and [SEP] included: between 3 and max_length."""
        return self._locate(sequence_ids)[2] + 2

    def packed(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64]:
        """Tokens (T,) of the sequences (S,), end to end, and their boundaries cu_seqlens (S + 1,)."""
        documents, offsets, lengths = self._locate(sequence_ids)
        before = disk_reads()
        if self._is_text_cold:
            self.dataset.index.prefetch_starts(documents)
        starts = self.dataset.index.starts(documents) + offsets
        if _any_negative(starts, len(self.dataset.tokens) - lengths - starts):
            raise ValueError(_changed(self.dataset))
        if self._is_text_cold:
            self.dataset.prefetch(starts, lengths)
        stored = self.dataset.framed(starts, lengths)
        self._is_text_cold = disk_reads() > before
        cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths + 2, out=cu_seqlens[1:])
        if int(stored.max(initial=0)) >= self.vocab_size or int(stored.min(initial=0)) < 0:
            self._refuse(stored, starts - 1 - cu_seqlens[:-1], lengths + 2)
        tokens = stored.astype(np.int64)
        tokens[cu_seqlens[:-1]] = self.tokenizer.cls_id
        tokens[cu_seqlens[1:] - 1] = self.tokenizer.sep_id
        return tokens, cu_seqlens

    @cached_property
    def special(self) -> npt.NDArray[np.bool_]:
        """(V,): which tokens are special."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[self.tokenizer.special_ids] = True
        return mask

    def documents(self, sequence_ids: npt.ArrayLike) -> Int64:
        """Which document of the corpus each sequence (S,) is a piece of."""
        return self._locate(sequence_ids)[0]

    def masker(self, *, seed: int, probability: float, smoothing: float) -> Masker:
        """`mask_tokens` with this corpus's vocabulary and token counts."""
        weights = smoothed_weights(self.dataset.token_counts(), smoothing)
        return Masker(seed, probability, weights, self.special, self.tokenizer.mask_id)

    def _locate(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64, Int64]:
        """(document, tokens of it before the sequence, tokens without [CLS] and [SEP]) of each sequence (S,)."""
        ids = np.asarray(sequence_ids, dtype=np.int64)
        if ids.size and int(ids.view(np.uint64).max()) >= self.num_sequences:  # as uint64 a negative one is huge
            raise ValueError(
                f"sequence ids {ids.min()} to {ids.max()} are not all within the corpus's [0, {self.num_sequences})"
            )
        self.dataset.check_unchanged()
        try:
            parts = [self._locate_few(ids[first : first + _AT_ONCE]) for first in range(0, max(len(ids), 1), _AT_ONCE)]
        except DamagedPageError:
            self._counts, self.note = replace_counts(self.dataset, self.max_length, self._piece)
            if self._counts.num_sequences != self.num_sequences:
                raise ValueError(_changed(self.dataset)) from None
            return self._locate(ids)
        if len(parts) == 1:
            return parts[0]
        documents, offsets, lengths = zip(*parts, strict=True)
        return np.concatenate(documents), np.concatenate(offsets), np.concatenate(lengths)

    def _locate_few(self, ids: Int64) -> tuple[Int64, Int64, Int64]:
        groups, nth, sequences = self._counts.find(ids)
        before = disk_reads()
        if self._are_lengths_cold:
            self.dataset.index.prefetch_group_lengths(groups)
        lengths = self.dataset.index.group_lengths(groups)  # (S, documents of the group)
        self._are_lengths_cold = disk_reads() > before
        pieces = pieces_of(lengths, self._piece)
        # Sequences up to each document's end; in 32 bits wherever that is enough.
        last = pieces.cumsum(axis=1, dtype=np.result_type(pieces, self._counts.ends))
        column = (last > nth.astype(last.dtype)[:, None]).argmax(axis=1)
        at = np.arange(0, lengths.size, GROUP) + column
        length = lengths.take(at).astype(np.int64)
        offset = (pieces.take(at) + nth - last.take(at)) * self._piece
        piece = np.minimum(length - offset, self._piece)
        if _any_negative(offset, piece - 1, sequences - 1 - nth, -np.abs(last[:, -1] - sequences)):
            raise ValueError(_changed(self.dataset))
        return groups * GROUP + column, offset, piece

    def _refuse(self, stored: npt.NDArray[np.integer], shifts: Int64, lengths: Int64) -> None:
        """Name the first token (T,) outside the vocabulary; token t of sequence s is token t + shifts[s] of the .bin."""
        bad = int(np.flatnonzero((stored < 0) | (stored >= self.vocab_size))[0])
        byte = (bad + int(np.repeat(shifts, lengths)[bad])) * self.dataset.dtype.itemsize
        raise ValueError(
            f"{self.dataset.prefix}.bin: token id {stored[bad]} at byte {byte} is outside the vocabulary "
            f"[0, {self.vocab_size}). Check the corpus: python -m data.prepare --verify {self.dataset.prefix}"
        )


def _any_negative(*values: Int64) -> bool:
    """Is any element of these arrays negative? Their sign bits are collected first: asking each array takes longer."""
    signs = values[0]
    for value in values[1:]:
        signs = signs | value
    return int(signs.min(initial=0)) < 0


def _changed(dataset: IndexedDataset) -> str:
    return (
        f"{dataset.index.path} has other numbers than when it was opened: it was written to while in use. "
        f"Check the corpus: python -m data.prepare --verify {dataset.prefix}"
    )
