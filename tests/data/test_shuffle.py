"""The shuffle is a permutation for any size, seed and epoch, and a fair one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.hashing import extend, random_bits, uniform
from data.shuffle import permute

WRAP = 2**64 - 1


def mix(value: int) -> int:
    """splitmix64's finaliser in Python's integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WRAP
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WRAP
    return value ^ (value >> 31)


def bits(*coordinates: int) -> int:
    golden, state = 0x9E3779B97F4A7C15, 0
    for coordinate in coordinates:
        state = mix(((state + golden) & WRAP) ^ mix((coordinate + golden) & WRAP))
    return state


def feistel_walk(index: int, size: int, seed: int, epoch: int) -> int:
    """`permute` of one index, in Python's integers."""
    half = 1
    while 4**half < size:
        half += 1
    while True:
        left, right = index >> half, index & (2**half - 1)
        for number in range(8):
            left, right = right, left ^ (bits(bits(seed, epoch), number, right) & (2**half - 1))
        index = (left << half) | right
        if index < size:
            return index


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_random_bits_are_splitmix64(coordinates: list[int]) -> None:
    assert random_bits(*coordinates)[0] == bits(*(coordinate & WRAP for coordinate in coordinates))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=5), st.data())
def test_a_common_beginning_may_be_hashed_once(coordinates: list[int], data: st.DataObject) -> None:
    """Whether a coordinate comes as a number or as an array, and where the tuple is cut, makes no difference."""
    mixed = [np.array([value]) if data.draw(st.booleans()) else value for value in coordinates]
    cut = data.draw(st.integers(0, len(coordinates)))
    expected = [bits(*(coordinate & WRAP for coordinate in coordinates))]
    assert random_bits(*mixed).tolist() == expected
    assert extend(random_bits(*mixed[:cut]), *mixed[cut:]).tolist() == expected


def test_uniform_never_reaches_its_ends_and_is_uniform() -> None:
    values = uniform(7, np.arange(200_000))
    assert values.min() > 0
    assert values.max() < 1
    counts = np.histogram(values, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_every_size_is_permuted(size: int, seed: int, epoch: int) -> None:
    image = permute(np.arange(size), size, seed=seed, epoch=epoch)
    assert image.dtype == np.int64
    assert np.array_equal(np.sort(image), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17])
def test_small_sizes_are_permuted_for_many_epochs(size: int) -> None:
    for epoch in range(50):
        assert sorted(permute(np.arange(size), size, seed=3, epoch=epoch)) == list(range(size))


@settings(deadline=None, max_examples=30)
@given(size=st.sampled_from([1, 2, 3, 100, 10**10, 2**62 - 1, 2**62]), data=st.data(), seed=st.integers(0, 99))
def test_same_as_the_plain_formula_at_any_scale(size: int, data: st.DataObject, seed: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    epoch = data.draw(st.integers(0, 9))
    assert permute([index], size, seed=seed, epoch=epoch).tolist() == [feistel_walk(index, size, seed, epoch)]


def test_an_epoch_per_index_is_the_same_as_one_after_the_other() -> None:
    index, epochs = np.tile(np.arange(1000), 3), np.repeat([0, 1, 2], 1000)
    together = permute(index, 1000, seed=5, epoch=epochs)
    apart = np.concatenate([permute(np.arange(1000), 1000, seed=5, epoch=epoch) for epoch in range(3)])
    assert np.array_equal(together, apart)


def test_a_size_and_a_seed_per_index_are_the_same_as_one_after_the_other() -> None:
    sizes = np.array([1, 5, 1000, 10**10])
    index = np.arange(400) % sizes[:, None] % 977
    together = permute(index.ravel(), np.repeat(sizes, 400), seed=np.repeat(range(4), 400), epoch=3)
    apart = [
        permute(row, int(size), seed=number, epoch=3)
        for number, (row, size) in enumerate(zip(index, sizes, strict=True))
    ]
    assert together.reshape(4, 400).tolist() == [image.tolist() for image in apart]


def test_epochs_and_seeds_differ_and_are_unrelated() -> None:
    orders = [permute(np.arange(5000), 5000, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    for number, first in enumerate(orders):
        assert abs(np.corrcoef(np.arange(5000), first)[0, 1]) < 0.06
        for second in orders[number + 1 :]:
            assert (first == second).sum() < 15  # a random pair agrees in about one place
            assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


@pytest.mark.parametrize("size", [3, 7, 10])
def test_every_index_goes_everywhere_equally_often(size: int) -> None:
    epochs = 6000
    images = permute(np.tile(np.arange(size), epochs), size, seed=1, epoch=np.repeat(np.arange(epochs), size))
    for position in range(size):
        counts = np.bincount(images.reshape(epochs, size)[:, position], minlength=size)
        expected = epochs / size
        assert ((counts - expected) ** 2 / expected).sum() < size + 6 * np.sqrt(2 * size)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 2**62 + 1), (5, 5), (-1, 5)])
def test_refuses_what_it_cannot_permute(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        permute([index], size, seed=0, epoch=0)


def test_the_order_is_a_promise() -> None:
    """A run resumed with newer code must continue the same stream, so these values may never change."""
    assert permute(np.arange(12), 12, seed=1, epoch=2).tolist() == [8, 0, 11, 2, 10, 6, 5, 1, 9, 3, 7, 4]
    assert permute([0, 1, 10**9], 10**10, seed=5, epoch=0).tolist() == [902710594, 8077078807, 7822054703]
