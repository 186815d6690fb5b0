"""Masks: exact counts, no special tokens, the recipe's distribution, and independence of everything but their key."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import masking
from data.masking import mask_tokens, masked_counts, smoothed_weights
from tests.data.helpers import CLS, FIRST_WORD, MASK, SEP, UNK, VOCAB_SIZE

SPECIAL = np.arange(VOCAB_SIZE) < FIRST_WORD
COUNTS = np.concatenate((np.zeros(FIRST_WORD), 10_000 // np.arange(1, VOCAB_SIZE - FIRST_WORD + 1))).astype(np.int64)
WEIGHTS = smoothed_weights(COUNTS, 0.7)


def pack(bodies: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    sequences = [np.concatenate(([CLS], body, [SEP])).astype(np.int64) for body in bodies]
    return np.concatenate(sequences), np.concatenate(([0], np.cumsum([len(sequence) for sequence in sequences])))


def mask(tokens: np.ndarray, cu_seqlens: np.ndarray, ids: np.ndarray, epochs: np.ndarray, **changes: object) -> tuple:
    settings = {"seed": 1, "weights": WEIGHTS, "special": SPECIAL, "mask_id": MASK, "probability": 0.15} | changes
    settings["ordinary"] = np.flatnonzero(~SPECIAL)
    return mask_tokens(tokens, cu_seqlens, ids, epochs, **settings)  # type: ignore[arg-type]


def words(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(FIRST_WORD, VOCAB_SIZE, size=length)


@given(st.integers(3, 600), st.sampled_from([0.01, 0.15, 0.5, 0.99]))
def test_the_count_follows_from_the_length(length: int, probability: float) -> None:
    expected = min(max(math.floor(probability * length + 0.5), 1), length - 2)
    assert masked_counts(np.array([length]), probability).tolist() == [expected]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    unknown_share=st.sampled_from([0.0, 0.3, 1.0]),
    probability=st.sampled_from([0.02, 0.15, 0.5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_exact_counts_and_never_a_special_token_while_others_are_left(
    lengths: list[int], unknown_share: float, probability: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    bodies = [np.where(generator.random(n) < unknown_share, UNK, words(n, seed)) for n in lengths]
    tokens, cu_seqlens = pack(bodies)
    ids = generator.integers(0, 10**10, size=len(lengths))
    original = tokens.copy()
    corrupted, positions, labels = mask(tokens, cu_seqlens, ids, ids * 0, probability=probability, seed=seed)

    assert np.array_equal(tokens, original)  # the input is left alone
    assert (np.diff(positions) > 0).all()
    assert np.array_equal(labels, tokens[positions])
    unmasked = np.setdiff1d(np.arange(len(tokens)), positions)
    assert np.array_equal(corrupted[unmasked], tokens[unmasked])
    for start, stop in itertools.pairwise(cu_seqlens):
        chosen = positions[(positions >= start) & (positions < stop)]
        assert len(chosen) == masked_counts(np.array([stop - start]), probability)[0]
        assert start not in chosen
        assert stop - 1 not in chosen
        ordinary = int((~SPECIAL[tokens[start:stop]]).sum())
        assert SPECIAL[tokens[chosen]].sum() == max(0, len(chosen) - ordinary)


def test_a_mask_depends_only_on_seed_epoch_and_sequence() -> None:
    bodies = [words(length, seed=length) for length in (5, 40, 17, 61, 1, 30)]
    ids, epochs = np.array([3, 10**10, 7, 0, 5, 8]), np.array([0, 1, 1, 0, 2, 0])

    def masks_of(order: list[int]) -> dict[int, tuple]:
        tokens, cu_seqlens = pack([bodies[i] for i in order])
        corrupted, positions, labels = mask(tokens, cu_seqlens, ids[order], epochs[order])
        found = {}
        for number, i in enumerate(order):
            start, stop = cu_seqlens[number : number + 2]
            inside = (positions >= start) & (positions < stop)
            found[i] = (
                corrupted[start:stop].tolist(),
                (positions[inside] - start).tolist(),
                labels[inside].tolist(),
            )
        return found

    together = masks_of([0, 1, 2, 3, 4, 5])
    assert masks_of([5, 3, 1, 0, 2, 4]) == together
    for i in range(6):
        assert masks_of([i]) == {i: together[i]}


def test_masks_change_with_each_part_of_their_key() -> None:
    tokens, cu_seqlens = pack([words(400)])
    base = mask(tokens, cu_seqlens, np.array([3]), np.array([0]))[1]
    for ids, epochs, seed in (([4], [0], 1), ([3], [1], 1), ([3], [0], 2)):
        other = mask(tokens, cu_seqlens, np.array(ids), np.array(epochs), seed=seed)[1]
        assert len(np.intersect1d(base, other)) < len(base) / 2


def test_positions_follow_the_smoothed_weights() -> None:
    """Inclusion frequencies against numpy's own weighted draw without replacement."""
    rounds, probability = 20_000, 0.3
    body = np.array([5, 5, 6, 8, 11, 20, 40, 80, 100, 119, 7, 9])
    tokens, cu_seqlens = pack([body] * rounds)
    positions = mask(tokens, cu_seqlens, np.arange(rounds), np.zeros(rounds, np.int64), probability=probability)[1]
    length = len(body) + 2
    ours = np.bincount(positions % length, minlength=length)[1:-1] / rounds

    chosen = int(masked_counts(np.array([length]), probability)[0])
    share = WEIGHTS[body] / WEIGHTS[body].sum()
    generator = np.random.default_rng(0)
    theirs = np.zeros(len(body))
    for _ in range(rounds):
        theirs[generator.choice(len(body), size=chosen, replace=False, p=share)] += 1 / rounds
    deviation = np.sqrt(2 * theirs * (1 - theirs) / rounds)
    assert (np.abs(ours - theirs) < 4.5 * deviation).all()
    assert ours.max() > 3 * ours.min()  # the weights matter in this example


def test_no_smoothing_is_uniform() -> None:
    rounds = 5000
    body = np.array([5, 5, 6, 119, 40, 80, 100, 118])
    tokens, cu_seqlens = pack([body] * rounds)
    flat = smoothed_weights(COUNTS, 0.0)
    positions = mask(tokens, cu_seqlens, np.arange(rounds), np.zeros(rounds, np.int64), weights=flat)[1]
    counts = np.bincount(positions % 10, minlength=10)[1:-1]
    expected = len(positions) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 24  # 7 degrees of freedom, p = 0.001


def test_eighty_ten_ten_and_replacements_are_uniform_over_ordinary_tokens() -> None:
    bodies = [words(500, seed) for seed in range(400)]
    tokens, cu_seqlens = pack(bodies)
    corrupted, positions, labels = mask(tokens, cu_seqlens, np.arange(400), np.zeros(400, np.int64))
    number = len(positions)
    now = corrupted[positions]
    masked = (now == MASK).sum() / number
    unchanged = (now == labels).sum() / number
    random_tokens = now[(now != MASK) & (now != labels)]
    ordinary = VOCAB_SIZE - FIRST_WORD
    for found, expected in (
        (masked, 0.8),
        (unchanged, 0.1 + 0.1 / ordinary),
        (len(random_tokens) / number, 0.1 - 0.1 / ordinary),
    ):
        assert abs(found - expected) < 4.5 * math.sqrt(expected * (1 - expected) / number)
    assert not SPECIAL[random_tokens].any()
    counts = np.bincount(random_tokens, minlength=VOCAB_SIZE)[FIRST_WORD:]
    mean = len(random_tokens) / ordinary
    assert ((counts - mean) ** 2 / mean).sum() < ordinary + 5 * math.sqrt(2 * ordinary)


def test_equal_keys_do_not_break_the_exact_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal keys are too rare to wait for, so the random numbers are made coarse."""
    exact = masking.as_uniform
    monkeypatch.setattr(masking, "as_uniform", lambda bits: np.maximum(np.round(exact(bits), 1), 0.1))
    tokens, cu_seqlens = pack([words(60, seed) % 2 + FIRST_WORD for seed in range(9)])
    _, positions, _ = mask(tokens, cu_seqlens, np.arange(9), np.zeros(9, np.int64))
    per_sequence = np.histogram(positions, bins=cu_seqlens)[0]
    assert per_sequence.tolist() == masked_counts(np.diff(cu_seqlens), 0.15).tolist()


def test_smoothed_weights_are_the_formula() -> None:
    weights = smoothed_weights(np.array([0, 1, 16, 10**9]), 0.5)
    assert weights == pytest.approx([1.0, 1.0, 0.25, 10**-4.5])


def test_masks_are_a_promise() -> None:
    """A run resumed with newer code must continue with the same masks, so these values may never change."""
    tokens, cu_seqlens = pack([np.arange(5, 45)])
    corrupted, positions, labels = mask(
        tokens, cu_seqlens, np.array([7]), np.array([3]), seed=11, weights=np.ones(VOCAB_SIZE)
    )
    assert positions.tolist() == [1, 11, 13, 19, 22, 29]
    assert labels.tolist() == [5, 15, 17, 23, 26, 33]
    assert corrupted[positions].tolist() == [MASK] * 6
