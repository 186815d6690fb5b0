"""Which sequences an update trains on, and which micro-batch gets which.

Update k trains on the positions [k * G, (k + 1) * G) of an endless stream: the sequences of a blend of corpora
(data/blend.py), shuffled anew each epoch. Windows that did harm can be left out; those behind them move up. All of it
follows from k, so a resumed run, or one on another number of ranks, sees the same sequences.

Shapes: G sequences of an update.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.blend import Blend
from data.masking import Int64, masked_counts


@dataclass(frozen=True, kw_only=True)
class Window:
    """The sequences of one update, over all ranks and micro-batches, and the denominators of its loss."""

    update: int
    sequence_ids: Int64
    """(G,), of the whole blend."""
    epochs: Int64
    """(G,): a window may straddle two epochs, and with weights every corpus has its own."""
    lengths: Int64
    """(G,), [CLS] and [SEP] included."""
    attended: int
    """Sum of the lengths: the denominator of the distillation and cosine losses."""
    masked: int
    """Masked positions: the denominator of the masked-language-modelling loss."""


class UpdateWindows:
    """The endless stream of a blend, cut into updates of G sequences; nothing is remembered between two calls."""

    left_out: tuple[int, ...] = ()
    """Windows of the stream that no update trains on, because they did harm; ascending."""

    def __init__(self, blend: Blend, *, sequences_per_update: int, seed: int, mask_probability: float) -> None:
        if sequences_per_update < 1:
            raise ValueError(f"an update of {sequences_per_update} sequences trains on nothing: at least 1")
        self.blend, self.seed, self.mask_probability = blend, seed, mask_probability
        self.sequences_per_update = sequences_per_update

    def position(self, update: int) -> int:
        """The window of the stream that the update trains on: the update-th of those that are not left out."""
        for left_out in self.left_out:
            if left_out > update:
                break
            update += 1
        return update

    def num_updates(self, epochs: float) -> int:
        """Whole updates in `epochs` times as many sequences as the corpora have. Errors: ValueError where that is none."""
        updates = int(epochs * self.blend.num_sequences / self.sequences_per_update)
        if updates < 1:
            raise ValueError(
                f"{epochs:g} epochs of {self.blend.num_sequences} sequences do not fill one update of "
                f"{self.sequences_per_update}. Lower train_batch_size in the DeepSpeed JSON, raise --epochs "
                "or prepare more text"
            )
        return updates

    def window(self, update: int) -> Window:
        """The update's sequences, epochs, lengths and denominators: a pure function of `update` and `left_out`."""
        stream = self.position(update) * self.sequences_per_update + np.arange(
            self.sequences_per_update, dtype=np.int64
        )
        epochs, sequence_ids = self.blend.stream(stream, seed=self.seed)
        lengths = self.blend.lengths(sequence_ids)
        return Window(
            update=update,
            sequence_ids=sequence_ids,
            epochs=epochs,
            lengths=lengths,
            attended=int(lengths.sum()),
            masked=int(masked_counts(lengths, self.mask_probability).sum()),
        )


def assign(lengths: npt.NDArray[np.integer], num_bins: int) -> list[Int64]:
    """Deal the sequences of an update (G,) into bins of exactly G / num_bins, balanced by tokens.

    Longest first to the least loaded bin that has room (Graham 1969). Returns index arrays, fullest bin first, so that
    bins next to each other, which ranks work on at the same time, are of nearly the same size. Deterministic.
    Errors: ValueError when G is no multiple of num_bins.
    """
    if num_bins < 1 or len(lengths) % num_bins:
        raise ValueError(
            f"{len(lengths)} sequences per update cannot be dealt into {num_bins} micro-batches (all ranks together) of the "
            "same number. Make train_batch_size a multiple of train_micro_batch_size_per_gpu x number of ranks"
        )
    capacity = len(lengths) // num_bins
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, number) for number in range(num_bins)]
    values = lengths.tolist()
    for sequence in np.argsort(-lengths, kind="stable").tolist():
        load, number = loads[0]
        bins[number].append(sequence)
        if len(bins[number]) < capacity:
            heapq.heapreplace(loads, (load + values[sequence], number))
        else:
            heapq.heappop(loads)
    dealt = [np.array(members, dtype=np.int64) for members in bins]
    return sorted(dealt, key=lambda members: -int(lengths[members].sum()))
