"""Update windows -> micro-batches of packed sequences; a stateless shuffle; resume by a counter.

Update k trains on the positions [k * G, (k + 1) * G) of an endless stream: the corpus's sequences, shuffled anew each
epoch. Everything about an update but its tokens follows from k, so a resumed run, or one on another number of ranks, sees
the same sequences with the same masks. The thread that runs ahead lives in data/loader.py.

Shapes: T real tokens of a micro-batch, S its sequences, M its masked positions, G sequences of an update.
"""

import heapq
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data.corpus import Corpus, Masker
from data.masking import Int64, masked_counts
from data.shuffle import permute

__all__ = ["Batch", "BatchLoader", "Corpus", "FixedBatches", "UpdateWindows", "Window", "assign", "fixed_batches"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A micro-batch, packed: every tensor holds real tokens only."""

    token_ids: torch.Tensor
    """(T,) int64, corrupted: what teacher and student read."""
    position_ids: torch.Tensor
    """(T,) int64, from 0 in every sequence."""
    cu_seqlens: torch.Tensor
    """(S + 1,) int32: sequence s is the tokens [cu_seqlens[s], cu_seqlens[s + 1])."""
    max_seqlen: int
    """Tokens of the longest sequence."""
    masked_positions: torch.Tensor
    """(M,) int64, ascending indices into the packed tokens."""
    masked_labels: torch.Tensor
    """(M,) int64: the true tokens at masked_positions."""
    sequence_ids: Int64
    """(S,) numpy, stays on the host: names the sequences when something goes wrong."""

    @property
    def num_tokens(self) -> int:
        """T, without asking the device."""
        return self.token_ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """The batch on a device; asynchronous when it is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a copy to a GPU does not hold up the host."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(t) for name, t in tensors.items() if isinstance(t, torch.Tensor)})


def make_batch(corpus: Corpus, masker: Masker, sequence_ids: Int64, epochs: Int64) -> Batch:
    """Read, pack and mask the sequences (S,), each in its epoch (S,)."""
    tokens, cu_seqlens = corpus.packed(sequence_ids)
    corrupted, positions, labels = masker(tokens, cu_seqlens, sequence_ids, epochs)
    lengths = np.diff(cu_seqlens)
    return Batch(
        token_ids=torch.from_numpy(corrupted),
        position_ids=torch.from_numpy(np.arange(len(tokens)) - np.repeat(cu_seqlens[:-1], lengths)),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
        max_seqlen=int(lengths.max()),
        masked_positions=torch.from_numpy(positions),
        masked_labels=torch.from_numpy(labels),
        sequence_ids=sequence_ids,
    )


@dataclass(frozen=True, kw_only=True)
class Window:
    """The sequences of one update, over all ranks and micro-batches, and the denominators of its loss."""

    update: int
    sequence_ids: Int64
    """(G,)"""
    epochs: Int64
    """(G,): a window may straddle two epochs."""
    lengths: Int64
    """(G,), [CLS] and [SEP] included."""
    attended: int
    """Sum of the lengths: the denominator of the distillation and cosine losses."""
    masked: int
    """Masked positions: the denominator of the masked-language-modelling loss."""


class UpdateWindows:
    """The endless stream of a corpus, cut into updates of G sequences; stateless."""

    def __init__(self, corpus: Corpus, *, sequences_per_update: int, seed: int, mask_probability: float) -> None:
        if sequences_per_update < 1:
            raise ValueError(f"an update of {sequences_per_update} sequences trains on nothing: at least 1")
        self.corpus, self.seed, self.mask_probability = corpus, seed, mask_probability
        self.sequences_per_update = sequences_per_update

    def num_updates(self, epochs: float) -> int:
        """Whole updates in `epochs` passes over the corpus. Errors: ValueError when there is not even one."""
        updates = int(epochs * self.corpus.num_sequences / self.sequences_per_update)
        if updates < 1:
            raise ValueError(
                f"{epochs:g} epochs of {self.corpus.num_sequences} sequences do not fill one update of "
                f"{self.sequences_per_update}. Lower train_batch_size in the DeepSpeed JSON, raise --epochs or prepare more text"
            )
        return updates

    def window(self, update: int) -> Window:
        """The update's sequences, epochs, lengths and denominators: a pure function of `update`."""
        stream = update * self.sequences_per_update + np.arange(self.sequences_per_update, dtype=np.int64)
        epochs, index = np.divmod(stream, self.corpus.num_sequences)
        sequence_ids = permute(index, self.corpus.num_sequences, seed=self.seed, epoch=epochs)
        lengths = self.corpus.lengths(sequence_ids)
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


@dataclass(frozen=True, kw_only=True)
class FixedBatches:
    """This rank's share of a fixed set of sequences, and the totals over all ranks."""

    batches: list[Batch]
    num_sequences: int
    attended: int
    masked: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def fixed_batches(
    corpus: Corpus,
    *,
    num_sequences: int,
    sequences_per_batch: int,
    seed: int,
    rank: int,
    num_ranks: int,
    mask_probability: float,
    mask_smoothing: float,
) -> FixedBatches:
    """Always the same sequences with the same masks, for held-out evaluation.

    They are spread evenly over the corpus and sorted by length, so little is padded. The batches are dealt to the ranks in
    turn: their union does not depend on `num_ranks`, and a rank may have one batch fewer than another, or none.
    The weights of the mask are those of this corpus, so the figures of runs on different training corpora compare.
    """
    wanted = min(num_sequences, corpus.num_sequences)
    if wanted < 1 or sequences_per_batch < 1:
        raise ValueError(
            f"cannot evaluate on {num_sequences} sequences in batches of {sequences_per_batch}: both must be at least 1"
        )
    sequence_ids = np.arange(wanted, dtype=np.int64) * corpus.num_sequences // wanted
    lengths = corpus.lengths(sequence_ids)
    by_length = sequence_ids[np.argsort(-lengths, kind="stable")]
    masker = corpus.masker(seed=seed, probability=mask_probability, smoothing=mask_smoothing)
    batches = []
    for start in range(rank * sequences_per_batch, wanted, num_ranks * sequences_per_batch):
        ids = by_length[start : start + sequences_per_batch]
        batches.append(make_batch(corpus, masker, ids, np.zeros_like(ids)))
    return FixedBatches(
        batches=batches,
        num_sequences=wanted,
        attended=int(lengths.sum()),
        masked=int(masked_counts(lengths, mask_probability).sum()),
    )


from data.loader import BatchLoader  # noqa: E402  (the loader builds on the classes above)
