"""Windows, their split into micro-batches, the loader's thread, and held-out batches."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.batch import make_batch
from data.batching import Batch, BatchLoader, Blend, Corpus, UpdateWindows, Window, assign, fixed_batches
from data.masking import masked_counts
from tests.data.helpers import load_updates, sequences_of

G = 24  # sequences of an update


@pytest.fixture
def windows(corpus: Corpus) -> UpdateWindows:
    return UpdateWindows(Blend([corpus]), sequences_per_update=G, seed=3, mask_probability=0.15)


def test_a_batch_is_packed_as_the_models_expect(windows: UpdateWindows, corpus: Corpus) -> None:
    for _, batches in load_updates(windows, 0, 2):
        for batch in batches:
            lengths = corpus.lengths(batch.sequence_ids)
            assert batch.cu_seqlens.tolist() == [0, *np.cumsum(lengths).tolist()]
            assert batch.cu_seqlens.dtype == torch.int32
            assert batch.max_seqlen == lengths.max()
            assert batch.num_tokens == lengths.sum() == len(batch.token_ids)
            assert batch.position_ids.tolist() == [position for length in lengths for position in range(length)]
            for name in ("token_ids", "position_ids", "masked_positions", "masked_labels"):
                assert getattr(batch, name).dtype == torch.int64
            original = batch.token_ids.clone()
            original[batch.masked_positions] = batch.masked_labels
            assert original.tolist() == corpus.packed(batch.sequence_ids)[0].tolist()
            moved = batch.to("meta")
            assert {moved.token_ids.device.type, moved.cu_seqlens.device.type, moved.masked_labels.device.type} == {
                "meta"
            }
            assert moved.max_seqlen == batch.max_seqlen
            assert moved.num_tokens == batch.num_tokens


def test_every_epoch_sees_every_sequence_once(windows: UpdateWindows, corpus: Corpus) -> None:
    seen: dict[int, Counter] = {0: Counter(), 1: Counter()}
    for update in range(2 * corpus.num_sequences // G + 1):
        window = windows.window(update)
        for sequence, epoch in zip(window.sequence_ids.tolist(), window.epochs.tolist(), strict=True):
            if epoch < 2:
                seen[epoch][sequence] += 1
    everything = Counter(range(corpus.num_sequences))
    assert seen[0] == seen[1] == everything


def test_every_epoch_has_its_own_order(windows: UpdateWindows, corpus: Corpus) -> None:
    stream = np.concatenate(
        [windows.window(update).sequence_ids for update in range(2 * corpus.num_sequences // G + 1)]
    )
    first, second = stream[: corpus.num_sequences], stream[corpus.num_sequences : 2 * corpus.num_sequences]
    assert (first == second).sum() < 10
    assert (first == np.arange(corpus.num_sequences)).sum() < 10


def test_windows_straddle_epochs_and_know_their_denominators(windows: UpdateWindows, corpus: Corpus) -> None:
    assert corpus.num_sequences % G  # or nothing straddles
    window = windows.window(corpus.num_sequences // G)
    assert set(window.epochs.tolist()) == {0, 1}
    [(loaded, batches)] = load_updates(windows, window.update, window.update + 1)
    assert np.array_equal(loaded.sequence_ids, window.sequence_ids)
    assert window.attended == sum(batch.num_tokens for batch in batches)
    assert window.masked == sum(len(batch.masked_positions) for batch in batches)


@pytest.mark.parametrize("first", [1, 7, 16, 17, 18, 29])
def test_resuming_gives_the_stream_of_never_having_stopped(windows: UpdateWindows, first: int) -> None:
    last = 32  # into the second epoch
    whole, resumed = load_updates(windows, 0, last), load_updates(windows, first, last)
    assert len(resumed) == last - first
    for (window, batches), (window_again, batches_again) in zip(whole[first:], resumed, strict=True):
        assert window.update == window_again.update
        assert len(batches) == len(batches_again) == 4
        for batch, again in zip(batches, batches_again, strict=True):
            assert torch.equal(batch.token_ids, again.token_ids)
            assert torch.equal(batch.masked_positions, again.masked_positions)
            assert torch.equal(batch.masked_labels, again.masked_labels)
            assert batch.sequence_ids.tolist() == again.sequence_ids.tolist()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), stop=st.integers(0, 50), smoothing=st.sampled_from([0.0, 0.7]))
def test_an_update_depends_on_nothing_but_its_number(
    windows: UpdateWindows, data: st.DataObject, stop: int, smoothing: float
) -> None:
    """Whatever the ranks, the micro-batches and the update a run resumes at: the same sequences with the same masks."""
    num_ranks = data.draw(st.sampled_from([number for number in range(1, G + 1) if G % number == 0]))
    each = G // num_ranks
    micro_batch = data.draw(st.sampled_from([number for number in range(1, each + 1) if each % number == 0]))
    blend = windows.blend
    masker = blend.masker(seed=windows.seed, probability=windows.mask_probability, smoothing=smoothing)
    expected = []
    for update in (stop, stop + 1):
        window = windows.window(update)
        expected.append(sorted(sequences_of(make_batch(blend, masker, window.sequence_ids, window.epochs))))
    split = {"num_ranks": num_ranks, "micro_batch": micro_batch, "smoothing": smoothing}
    ranks = [load_updates(windows, stop, stop + 2, rank=rank, **split) for rank in range(num_ranks)]
    for number, sequences in enumerate(expected):
        micro_batches = [batch for loaded in ranks for batch in loaded[number][1]]
        assert [len(batch.sequence_ids) for batch in micro_batches] == [micro_batch] * (G // micro_batch)
        assert sorted(sequence for batch in micro_batches for sequence in sequences_of(batch)) == sequences


def test_another_seed_is_another_stream(corpus: Corpus, windows: UpdateWindows) -> None:
    other = UpdateWindows(Blend([corpus]), sequences_per_update=G, seed=4, mask_probability=0.15)
    assert windows.window(0).sequence_ids.tolist() != other.window(0).sequence_ids.tolist()


def test_num_updates(windows: UpdateWindows, corpus: Corpus) -> None:
    assert windows.num_updates(1) == corpus.num_sequences // G
    assert windows.num_updates(2.5) == int(2.5 * corpus.num_sequences / G)
    with pytest.raises(ValueError, match=rf"0\.01 epochs of {corpus.num_sequences} sequences .* {G}\."):
        windows.num_updates(0.01)


@settings(deadline=None)
@given(num_bins=st.integers(1, 12), capacity=st.integers(1, 12), data=st.data())
def test_assignment_fills_every_bin_exactly_and_evenly(num_bins: int, capacity: int, data: st.DataObject) -> None:
    number = num_bins * capacity
    lengths = np.array(data.draw(st.lists(st.integers(3, 512), min_size=number, max_size=number)))
    bins = assign(lengths, num_bins)
    assert len(bins) == num_bins
    assert {len(members) for members in bins} == {capacity}
    assert sorted(np.concatenate(bins).tolist()) == list(range(number))
    loads = [int(lengths[members].sum()) for members in bins]
    assert loads == sorted(loads, reverse=True)
    assert loads[0] - loads[-1] <= 512 * capacity / 2 + 512
    assert [members.tolist() for members in assign(lengths, num_bins)] == [members.tolist() for members in bins]


def test_assignment_balances_a_realistic_update() -> None:
    """Most documents fill max_length, the rest are anything: the worst bin is within 3% of the mean."""
    generator = np.random.default_rng(0)
    lengths = np.where(generator.random(512) < 0.5, 512, generator.integers(3, 513, size=512))
    loads = [lengths[members].sum() for members in assign(lengths, 16)]
    assert max(loads) < 1.03 * np.mean(loads)


def test_indivisible_numbers_are_named(windows: UpdateWindows) -> None:
    with pytest.raises(ValueError, match=r"10 sequences per update .* 3 micro-batches"):
        assign(np.full(10, 5), 3)
    with pytest.raises(ValueError, match=rf"{G} sequences per update .* 5 ranks x 2 sequences .* = 10"):
        load_updates(windows, 0, 1, num_ranks=5, micro_batch=2)


class Recording(UpdateWindows):
    """Notes which windows were asked for, and fails at one of them."""

    def __init__(self, windows: UpdateWindows, failing: int = -1) -> None:
        super().__init__(windows.blend, sequences_per_update=G, seed=3, mask_probability=0.15)
        self.asked: list[int] = []
        self.failing = failing

    def window(self, update: int) -> Window:
        self.asked.append(update)
        if update == self.failing:
            raise ZeroDivisionError("in the thread")
        return super().window(update)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_an_error_in_the_thread_reaches_the_loop_with_its_traceback(windows: UpdateWindows) -> None:
    seen = []

    def read_all() -> None:
        for window, batches in loader:
            seen.append((window.update, len(list(batches))))

    loader = BatchLoader(
        Recording(windows, failing=2), rank=0, num_ranks=1, sequences_per_micro_batch=12, first_update=0, last_update=9
    )
    with pytest.raises(ZeroDivisionError, match="in the thread") as raised:
        read_all()
    assert seen == [(0, 2), (1, 2)]
    assert "_produce" in [entry.name for entry in raised.traceback]
    assert not loader_threads()


def test_the_thread_runs_ahead_by_no_more_than_prefetch_and_stops_promptly(windows: UpdateWindows) -> None:
    recording = Recording(windows)
    loader = BatchLoader(
        recording, rank=0, num_ranks=1, sequences_per_micro_batch=G, first_update=0, last_update=10**6, prefetch=3
    )
    for _, batches in loader:
        next(batches)
        time.sleep(0.3)
        assert len(recording.asked) < 5
        break
    started = time.perf_counter()
    loader.close()
    assert time.perf_counter() - started < 1
    assert not loader_threads()


def test_unread_micro_batches_are_skipped(windows: UpdateWindows) -> None:
    loader = BatchLoader(windows, rank=0, num_ranks=1, sequences_per_micro_batch=6, first_update=0, last_update=3)
    assert [(window.update, len(next(batches).sequence_ids)) for window, batches in loader] == [(0, 6), (1, 6), (2, 6)]


def test_waiting_is_counted(windows: UpdateWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    real = UpdateWindows.window
    monkeypatch.setattr(UpdateWindows, "window", lambda self, update: (time.sleep(0.15), real(self, update))[1])
    with BatchLoader(
        windows, rank=0, num_ranks=1, sequences_per_micro_batch=G, first_update=0, last_update=2
    ) as loader:
        for _, batches in loader:
            list(batches)
    assert 0.2 < loader.wait_seconds < 5


def test_a_loader_is_read_once(windows: UpdateWindows) -> None:
    loader = BatchLoader(windows, rank=0, num_ranks=1, sequences_per_micro_batch=G, first_update=0, last_update=1)
    assert len([list(batches) for _, batches in loader]) == 1
    with pytest.raises(RuntimeError, match="read once"):
        next(iter(loader))


def held_out(corpus: Corpus, rank: int = 0, num_ranks: int = 1, number: int = 50, seed: int = 0) -> list[Batch]:
    found = fixed_batches(
        corpus,
        num_sequences=number,
        sequences_per_batch=8,
        seed=seed,
        rank=rank,
        num_ranks=num_ranks,
        mask_probability=0.15,
        mask_smoothing=0.7,
    )
    lengths = corpus.lengths(np.concatenate([batch.sequence_ids for batch in found])) if num_ranks == 1 else np.empty(0)
    if num_ranks == 1:
        assert found.attended == lengths.sum()
        assert found.masked == masked_counts(lengths, 0.15).sum() == sum(len(b.masked_labels) for b in found)
        assert found.num_sequences == len(lengths)
    return list(found)


def test_held_out_batches_are_the_same_for_any_number_of_ranks(corpus: Corpus) -> None:
    alone = sorted(sequence for batch in held_out(corpus) for sequence in sequences_of(batch))
    assert alone == sorted(sequence for batch in held_out(corpus) for sequence in sequences_of(batch))
    for num_ranks in (2, 3, 8):
        together = [
            sequence
            for rank in range(num_ranks)
            for b in held_out(corpus, rank, num_ranks)
            for sequence in sequences_of(b)
        ]
        assert sorted(together) == alone


def test_held_out_sequences_are_spread_over_the_corpus_and_sorted_by_length(corpus: Corpus) -> None:
    batches = held_out(corpus)
    ids = np.sort(np.concatenate([batch.sequence_ids for batch in batches]))
    assert len(np.unique(ids)) == 50
    assert np.diff(ids).max() <= corpus.num_sequences / 50 + 1
    assert ids[-1] >= corpus.num_sequences * 49 // 50
    lengths = np.concatenate([corpus.lengths(batch.sequence_ids) for batch in batches])
    assert (np.diff(lengths) <= 0).all()


def test_held_out_takes_the_whole_of_a_small_corpus(corpus: Corpus) -> None:
    batches = held_out(corpus, number=10**6)
    assert sum(len(batch.sequence_ids) for batch in batches) == corpus.num_sequences
