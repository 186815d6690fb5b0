"""From corpora to batches: what the scripts at the root import.

    corpora -> Blend (data/blend.py) -> UpdateWindows (data/windows.py)
            -> BatchLoader (data/loader.py) -> Batch (data/batch.py)

`fixed_batches` is the held-out evaluation's way: a fixed set instead of a stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.batch import Batch, Sequences, make_batch
from data.blend import Blend
from data.corpus import Corpus
from data.loader import BatchLoader
from data.masking import masked_counts
from data.windows import UpdateWindows, Window, assign

__all__ = [
    "Batch",
    "BatchLoader",
    "Blend",
    "Corpus",
    "FixedBatches",
    "UpdateWindows",
    "Window",
    "assign",
    "fixed_batches",
]


@dataclass(frozen=True, kw_only=True)
class FixedBatches:
    """This rank's share of a fixed set of sequences, and the totals over all ranks."""

    batches: list[Batch]
    num_sequences: int
    attended: int
    masked: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def fixed_batches(
    source: Sequences,
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

    They are spread evenly over the text and sorted by length, so little is padded. The batches are dealt to the ranks in
    turn: their union does not depend on `num_ranks`, and a rank may have one batch fewer than another, or none.
    The weights of the mask are those of this text, so the figures of runs on different training corpora compare.
    """
    wanted = min(num_sequences, source.num_sequences)
    if wanted < 1 or sequences_per_batch < 1:
        raise ValueError(
            f"cannot evaluate on {num_sequences} sequences in batches of {sequences_per_batch}: both must be at least 1"
        )
    sequence_ids = np.arange(wanted, dtype=np.int64) * source.num_sequences // wanted
    lengths = source.lengths(sequence_ids)
    by_length = sequence_ids[np.argsort(-lengths, kind="stable")]
    masker = source.masker(seed=seed, probability=mask_probability, smoothing=mask_smoothing)
    batches = []
    for start in range(rank * sequences_per_batch, wanted, num_ranks * sequences_per_batch):
        ids = by_length[start : start + sequences_per_batch]
        batches.append(make_batch(source, masker, ids, np.zeros_like(ids)))
    return FixedBatches(
        batches=batches,
        num_sequences=wanted,
        attended=int(lengths.sum()),
        masked=int(masked_counts(lengths, mask_probability).sum()),
    )
