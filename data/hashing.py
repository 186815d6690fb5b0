"""Counter-based random numbers: a value is a hash of its coordinates, so no generator state is ever saved or shared.

The mixing function is splitmix64's finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators"), applied once per coordinate. All arithmetic is uint64 and wraps, as intended.
"""

import numpy as np
import numpy.typing as npt

Uint64 = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: successive counters land far apart


def _mix(value: Uint64) -> Uint64:
    """splitmix64's finaliser, in place on a fresh array."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def random_bits(*coordinates: npt.ArrayLike) -> Uint64:
    """64 random bits for each (broadcast) tuple of integer coordinates; at least one-dimensional.

    The order of the coordinates matters: random_bits(1, 2) and random_bits(2, 1) are unrelated.
    """
    return extend(np.zeros(1, dtype=np.uint64), *coordinates)


def extend(state: Uint64, *coordinates: npt.ArrayLike) -> Uint64:
    """The random bits of longer tuples from those of their beginnings: extend(random_bits(1), 2) is random_bits(1, 2).

    What many tuples have in common is hashed once.
    """
    for coordinate in coordinates:
        # astype after asarray: a negative Python integer becomes its two's complement instead of an error.
        step = np.atleast_1d(np.asarray(coordinate)).astype(np.uint64)
        state = _mix((state + _GOLDEN) ^ _mix(step + _GOLDEN))
    return state


def uniform(*coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A uniform number in the open interval (0, 1) for each tuple of coordinates, on a grid of 2**-52."""
    return as_uniform(random_bits(*coordinates))


def as_uniform(bits: Uint64) -> npt.NDArray[np.float64]:
    """Random bits as numbers in the open interval (0, 1), on a grid of 2**-52."""
    # The half step keeps 0 out, of which the caller may take the logarithm.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
