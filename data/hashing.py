"""Counter-based random numbers: a value is a hash of its coordinates, so no generator state is ever saved or shared.

The mixing function is splitmix64's finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators"), applied once per coordinate. All arithmetic is uint64 and wraps, as intended.
"""

import numpy as np
import numpy.typing as npt

Uint64 = npt.NDArray[np.uint64]

_WRAP = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: successive counters land far apart
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
# Numpy's operations on small arrays would spend half their time on converting Python's integers.
_GOLDEN_64, _LAST_SHIFT_64 = np.uint64(_GOLDEN), np.uint64(_LAST_SHIFT)
_STEPS_64 = [(np.uint64(shift), np.uint64(factor)) for shift, factor in _STEPS]


def _mix(value: Uint64) -> Uint64:
    """splitmix64's finaliser, in place on a fresh array."""
    for shift, factor in _STEPS_64:
        value ^= value >> shift
        value *= factor
    value ^= value >> _LAST_SHIFT_64
    return value


def _mix_one(value: int) -> int:
    """The same of one number, in Python's integers: ten times faster than an array of one."""
    for shift, factor in _STEPS:
        value = ((value ^ (value >> shift)) * factor) & _WRAP
    return value ^ (value >> _LAST_SHIFT)


def random_bits(*coordinates: npt.ArrayLike) -> Uint64:
    """64 random bits for each (broadcast) tuple of integer coordinates; at least one-dimensional.

    The order of the coordinates matters: random_bits(1, 2) and random_bits(2, 1) are unrelated.
    """
    state, number = 0, 0
    for coordinate in coordinates:  # those that are the same for all tuples
        if not isinstance(coordinate, int):
            break
        state = _mix_one(((state + _GOLDEN) & _WRAP) ^ _mix_one((coordinate + _GOLDEN) & _WRAP))
        number += 1
    return extend(np.array([state], dtype=np.uint64), *coordinates[number:])


def extend(state: Uint64, *coordinates: npt.ArrayLike) -> Uint64:
    """The random bits of longer tuples from those of their beginnings: extend(random_bits(1), 2) is random_bits(1, 2).

    What many tuples have in common is hashed once.
    """
    for coordinate in coordinates:
        if isinstance(coordinate, int):
            state = _mix((state + _GOLDEN_64) ^ np.uint64(_mix_one((coordinate + _GOLDEN) & _WRAP)))
        else:
            # astype after asarray: a negative integer becomes its two's complement instead of an error.
            step = np.atleast_1d(np.asarray(coordinate)).astype(np.uint64)
            step += _GOLDEN_64
            state = _mix((state + _GOLDEN_64) ^ _mix(step))
    return state


def uniform(*coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A uniform number in the open interval (0, 1) for each tuple of coordinates, on a grid of 2**-52."""
    return as_uniform(random_bits(*coordinates))


def as_uniform(bits: Uint64) -> npt.NDArray[np.float64]:
    """Random bits as numbers in the open interval (0, 1), on a grid of 2**-52."""
    # The half step keeps 0 out, of which the caller may take the logarithm.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
