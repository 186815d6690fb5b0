"""Which tokens a corpus is made of.

Shapes: V tokens of the vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.indexed_dataset import IndexedDataset

_TOKENS_AT_ONCE = 1 << 20
_MOST_BLOCKS = 256  # a quarter of a billion tokens, some seconds of counting
_UNKNOWN_VOCABULARY = 1 << 22  # ids below this are counted where nobody says how many there are


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How often each token occurs, in `counted` of the corpus's tokens."""

    counts: npt.NDArray[np.int64]
    """(V,)"""
    counted: int
    outside: int
    """Counted tokens whose id is outside the vocabulary."""

    def most_frequent(self, number: int) -> list[tuple[int, int]]:
        """(token id, count), commonest first; ids break ties."""
        order = np.argsort(-self.counts, kind="stable")[:number]
        return [(int(token), int(self.counts[token])) for token in order if self.counts[token]]

    def tokens_covering(self, share: float) -> int:
        """How many of the commonest tokens make up `share` of the text."""
        falling = np.cumsum(np.sort(self.counts)[::-1])
        return int(np.searchsorted(falling, share * falling[-1])) + 1 if falling[-1] else 0


def stored_frequencies(dataset: IndexedDataset) -> Frequencies:
    """From PREFIX.token_counts.npy: exact, and no token is read."""
    return Frequencies(counts=dataset.token_counts(), counted=dataset.num_tokens, outside=0)


def sampled_frequencies(dataset: IndexedDataset, vocab_size: int | None) -> Frequencies:
    """Counted in the .bin: all of it, or 256 blocks spread evenly over a large one."""
    size = vocab_size or _UNKNOWN_VOCABULARY
    counts = np.zeros(size, dtype=np.int64)
    num_blocks = -(-len(dataset.tokens) // _TOKENS_AT_ONCE)
    read = min(num_blocks, _MOST_BLOCKS)
    counted = outside = 0
    for number in range(read):
        dataset.check_unchanged()
        start = number * num_blocks // read * _TOKENS_AT_ONCE
        block = dataset.tokens[start : start + _TOKENS_AT_ONCE]
        inside = block[(block >= 0) & (block < size)]
        counts += np.bincount(inside, minlength=size)
        counted, outside = counted + len(block), outside + len(block) - len(inside)
    return Frequencies(counts=counts, counted=counted, outside=outside)
