"""A shuffle without memory: a keyed permutation of [0, size), evaluated where it is needed.

A balanced Feistel network permutes the smallest power of four that holds `size`; an image outside the range is fed
back until it falls inside ("cycle walking", Black & Rogaway 2002), which keeps it a permutation of the range.
"""

import numpy as np
import numpy.typing as npt

from data.hashing import Uint64, extend, random_bits

_ROUNDS = 8  # four suffice for large domains (Luby & Rackoff 1988); tiny ones mix slowly, and rounds are cheap
_LARGEST = 2**62
_POWERS_OF_FOUR = 4 ** np.arange(1, 32, dtype=np.int64)  # the last is _LARGEST


def permute(
    index: npt.ArrayLike, size: int | npt.ArrayLike, *, seed: int | npt.ArrayLike, epoch: int | npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Where the shuffle of `epoch` sends each index: a permutation of [0, size), O(1) in size.

    Shapes: index (N,), size, seed and epoch a number or (N,), result (N,) int64. Another seed or epoch is another
    permutation. Errors: ValueError for a size outside [1, 2**62] or an index outside [0, size).
    """
    position, sizes = np.atleast_1d(np.asarray(index, dtype=np.int64)), np.asarray(size, dtype=np.int64)
    if not (sizes.min() >= 1 and sizes.max() <= _LARGEST):
        raise ValueError(f"cannot shuffle {sizes} elements: the size must be between 1 and 2**62")
    if not ((position >= 0) & (position < sizes)).all():
        raise ValueError(f"indices {position.min()} to {position.max()} are not all within [0, {sizes})")
    # Mostly one seed and epoch for all: what depends on them alone is then hashed once.
    seeds, number_of = np.unique(random_bits(seed, epoch), return_inverse=True)
    keys = [random_bits(seeds, round_number) for round_number in range(_ROUNDS)]
    key_of = np.broadcast_to(number_of, position.shape)
    half_bits = np.broadcast_to(1 + np.searchsorted(_POWERS_OF_FOUR, sizes), position.shape).astype(np.uint64)
    limit = np.broadcast_to(sizes.astype(np.uint64), position.shape)
    value = _feistel(position.astype(np.uint64), half_bits, keys, key_of)
    outside = np.flatnonzero(value >= limit)
    while outside.size:
        value[outside] = _feistel(value[outside], half_bits[outside], keys, key_of[outside])
        outside = outside[value[outside] >= limit[outside]]
    return value.astype(np.int64)


def _feistel(value: Uint64, half_bits: Uint64, keys: list[Uint64], key_of: npt.NDArray[np.integer]) -> Uint64:
    """One pass through the network: a bijection of [0, 4**half_bits) for each seed and epoch; their key in each round."""
    low_bits = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = value >> half_bits, value & low_bits
    for key in keys:
        left, right = right, left ^ (extend(key if len(key) == 1 else key[key_of], right) & low_bits)
    return (left << half_bits) | right
