"""A shuffle without memory: a keyed permutation of [0, size), evaluated where it is needed.

A balanced Feistel network permutes the smallest power of four that holds `size`; an image outside the range is fed
back until it falls inside ("cycle walking", Black & Rogaway 2002), which keeps it a permutation of the range.
"""

import numpy as np
import numpy.typing as npt

from data.hashing import Uint64, extend, random_bits

_ROUNDS = 8  # four suffice for large domains (Luby & Rackoff 1988); tiny ones mix slowly, and rounds are cheap
_LARGEST = 2**62


def permute(index: npt.ArrayLike, size: int, *, seed: int, epoch: int | npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Where the shuffle of `epoch` sends each index: a permutation of [0, size), O(1) in size.

    Shapes: index (N,), epoch a number or (N,), result (N,) int64. Another seed or epoch is another permutation.
    Errors: ValueError for a size outside [1, 2**62] or an index outside [0, size).
    """
    position = np.atleast_1d(np.asarray(index, dtype=np.int64))
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"cannot shuffle {size} elements: the size must be between 1 and 2**62")
    if position.size and not (position.min() >= 0 and position.max() < size):
        raise ValueError(f"indices {position.min()} to {position.max()} are not all within [0, {size})")
    # Mostly one epoch for all: what depends on it alone is then hashed once.
    epochs, number_of = np.unique(epoch, return_inverse=True)
    keys = [random_bits(random_bits(seed, epochs), round_number) for round_number in range(_ROUNDS)]
    of_epoch = None if len(epochs) == 1 else np.broadcast_to(number_of, position.shape)
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    value = _feistel(position.astype(np.uint64), half_bits, keys, of_epoch)
    outside = np.flatnonzero(value >= size)
    while outside.size:
        value[outside] = _feistel(value[outside], half_bits, keys, None if of_epoch is None else of_epoch[outside])
        outside = outside[value[outside] >= size]
    return value.astype(np.int64)


def _feistel(value: Uint64, half_bits: int, keys: list[Uint64], of_epoch: npt.NDArray[np.integer] | None) -> Uint64:
    """One pass through the network: a bijection of [0, 4**half_bits) for each epoch; a key of each round and epoch."""
    shift, low_bits = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & low_bits
    for key in keys:
        left, right = right, left ^ (extend(key if of_epoch is None else key[of_epoch], right) & low_bits)
    return (left << shift) | right
