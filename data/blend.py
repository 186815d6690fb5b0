"""Several corpora as one: what an update's sequences are drawn from, also where there is a single corpus.

Sequences have global ids: those of corpus i follow those of the corpora before it, in the order they were given in. That
order is therefore part of what decides a run. The stream, an endless order of global ids, is arithmetic on positions:

- without weights, one keyed permutation of all sequences, epoch after epoch, so that every corpus is read equally often;
- with weights, blocks of 100,000 positions in which each corpus has its share of the places, always the same ones, and
  fills them from a stream of its own: one keyed permutation of its sequences, epoch after epoch of that corpus.

Shapes: K corpora, S sequences asked for, T their tokens, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.blend_checks import check_together
from data.config import parse_corpora
from data.corpus import Corpus, Masker
from data.hashing import random_bits
from data.masking import Float64, Int64, smoothed_weights
from data.shuffle import permute
from data.tokenizer import Tokenizer

BLOCK = 100_000
"""Positions of the stream in which each corpus has exactly its share: a weight counts to 5 digits."""
_OF_ITS_OWN = 1  # tells the seeds of the corpora's own shuffles from the run's


class Blend:
    """Corpora of one vocabulary, with weights (K,), or none for as many sequences of each as it has.

    shares (K,): part of the stream's sequences that are a corpus's; they add up to 1. A single corpus has no use for a
    weight. Errors: ValueError where the corpora cannot be trained on together.
    """

    def __init__(self, corpora: Sequence[Corpus], weights: Sequence[float] = ()) -> None:
        check_together(corpora)
        self.corpora = tuple(corpora)
        self.prefixes = [corpus.dataset.prefix for corpus in corpora]
        self.tokenizer = corpora[0].tokenizer
        self.vocab_size, self.fingerprint = corpora[0].vocab_size, corpora[0].fingerprint
        self._sizes = np.array([corpus.num_sequences for corpus in corpora], dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.num_sequences = int(self._sizes.sum())
        self.shares: Float64 = self._sizes / self.num_sequences
        self.is_weighted = len(weights) > 0 and len(corpora) > 1
        if self.is_weighted:
            places = _places(weights, self.prefixes)
            self.shares = places / BLOCK
            self._places, self._corpus_at, self._turn_at = places, *_interleave(places)

    @classmethod
    def open(cls, texts: Sequence[str], *, max_length: int) -> "Blend":
        """The corpora of --data. Errors: FileNotFoundError, ValueError; both say what to do."""
        prefixes, weights = parse_corpora(texts)
        return cls([_open(prefix, max_length) for prefix in prefixes], weights)

    def load_tokenizer(self) -> Tokenizer:
        """That of the first corpus; the others have the same vocabulary. Errors: ValueError, OSError."""
        return self.corpora[0].load_tokenizer()

    def stream(self, positions: Int64, *, seed: int) -> tuple[Int64, Int64]:
        """(epochs, global ids) at positions (S,) of the endless stream: a bijection with the pairs of both.

        With weights, an epoch is one of the sequence's own corpus.
        """
        if not self.is_weighted:
            epochs, index = np.divmod(positions, self.num_sequences)
            return epochs, permute(index, self.num_sequences, seed=seed, epoch=epochs)
        block, place = np.divmod(positions, BLOCK)
        which = self._corpus_at[place]
        epochs, index = np.divmod(block * self._places[which] + self._turn_at[place], self._sizes[which])
        keys = random_bits(seed, _OF_ITS_OWN, which)  # every corpus its own shuffle, though two may be of the same size
        return epochs, self._starts[which] + permute(index, self._sizes[which], seed=keys, epoch=epochs)

    def lengths(self, sequence_ids: npt.ArrayLike) -> Int64:
        """Tokens of each sequence (S,), [CLS] and [SEP] included."""
        which, local = self.locate(sequence_ids)
        lengths = np.empty(len(local), dtype=np.int64)
        for number, members in self._members(which):
            lengths[members] = self.corpora[number].lengths(local[members])
        return lengths

    def packed(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64]:
        """Tokens (T,) of the sequences (S,), end to end, and their boundaries cu_seqlens (S + 1,)."""
        which, local = self.locate(sequence_ids)
        read = [(members, *self.corpora[number].packed(local[members])) for number, members in self._members(which)]
        if len(read) == 1:
            return read[0][1:]
        lengths = np.zeros(len(local), dtype=np.int64)
        for members, _, boundaries in read:
            lengths[members] = np.diff(boundaries)
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
        tokens = np.empty(cu_seqlens[-1], dtype=np.int64)
        for members, part, boundaries in read:
            shifts = cu_seqlens[members] - boundaries[:-1]
            tokens[np.repeat(shifts, lengths[members]) + np.arange(len(part))] = part
        return tokens, cu_seqlens

    def locate(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64]:
        """(number of its corpus, id within that corpus) of each sequence (S,)."""
        ids = np.asarray(sequence_ids, dtype=np.int64)
        which = np.searchsorted(self._starts[1:], ids, side="right")
        return which, ids - self._starts[which]

    def masker(self, *, seed: int, probability: float, smoothing: float) -> Masker:
        """`mask_tokens` with the blend's vocabulary and token counts."""
        weights = smoothed_weights(self.token_counts, smoothing)
        return Masker(seed, probability, weights, self.corpora[0].special, self.tokenizer.mask_id)

    @cached_property
    def token_counts(self) -> Float64:
        """(V,) how often each token is read, in expectation, in one epoch of the blend, which is as many sequences as all
        corpora have: the sum over corpora of its token counts times its passes, where a corpus of N_i of the N sequences
        and share s_i is passed over s_i N / N_i times. Without weights that is once, and the sum that of the counts.
        """
        passes = self.epochs(self.num_sequences) if self.is_weighted else np.ones(len(self.corpora))
        counts = zip(self.corpora, passes, strict=True)
        return np.sum([corpus.dataset.token_counts() * times for corpus, times in counts], axis=0)

    def epochs(self, num_sequences: int) -> Float64:
        """(K,) passes over each corpus in so many sequences of the stream, but for rounding within a block."""
        return num_sequences * self.shares / self._sizes

    def describe(self, sequence_ids: npt.ArrayLike) -> dict[str, list[str] | list[int]]:
        """Where sequences (S,) are found: prefix of the corpus, document and sequence id in it, in columns."""
        which, local = self.locate(sequence_ids)
        documents = np.empty(len(local), dtype=np.int64)
        for number, members in self._members(which):
            documents[members] = self.corpora[number].documents(local[members])
        names = [self.prefixes[number] for number in which]
        return {"corpus": names, "document": documents.tolist(), "sequence": local.tolist()}

    def identity(self) -> dict[str, list[str] | list[float]]:
        """What decides the stream besides the seed: contents of the corpora, in order, and their weights."""
        weights = self.shares.tolist() if self.is_weighted else []
        contents = [f"{corpus.sha256} {corpus.index_sha256}" for corpus in self.corpora]
        return {"corpora": contents, "weights": weights}

    def _members(self, which: Int64) -> list[tuple[int, Int64]]:
        """For each corpus that occurs: its number, and where in `which`."""
        if len(self.corpora) == 1:
            return [(0, np.arange(len(which)))]
        occurring = np.flatnonzero(np.bincount(which, minlength=len(self.corpora)))
        return [(int(number), np.flatnonzero(which == number)) for number in occurring]


def _open(prefix: str, max_length: int) -> Corpus:
    try:
        return Corpus.open(prefix, max_length=max_length)
    except FileNotFoundError as error:
        _, colon, tail = Path(prefix).name.rpartition(":")
        if not colon:
            raise
        raise FileNotFoundError(f"'{tail}' is no number, so {prefix} is a name without a weight, and {error}") from None


def _places(weights: Sequence[float], prefixes: Sequence[str]) -> Int64:
    """(K,) of a block's places, in proportion to the weights, by largest remainder."""
    scaled = np.array(weights) / max(weights)
    exact = np.round(BLOCK * scaled / scaled.sum(), 9)  # 7:3 and 0.7:0.3 are the same, whatever their last bits
    places = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(places - exact, kind="stable")
    places[by_remainder[: BLOCK - int(places.sum())]] += 1
    for prefix, weight, number in zip(prefixes, weights, places.tolist(), strict=True):
        if number == 0:
            raise ValueError(
                f"--data {prefix}:{weight:g} is less than one sequence in {BLOCK:,}: raise the weight, or leave the corpus "
                "out"
            )
    return places


def _interleave(places: Int64) -> tuple[Int64, Int64]:
    """(corpus, how many places it has had before) at each place of a block (BLOCK,).

    A corpus's places are as evenly spaced as they can be (the j-th of n at (j + 1/2) / n of the block, as Webster's method
    hands out seats), so that every update has its share of each corpus to within a few sequences; places drawn at
    random would leave it the error of a sample. An update's sequences have no order that a model could see.
    """
    which = np.repeat(np.arange(len(places)), places)
    turn = np.arange(BLOCK) - np.repeat(np.cumsum(places) - places, places)
    order = np.argsort((turn + 0.5) / places[which], kind="stable")
    return which[order], turn[order]
