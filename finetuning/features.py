"""Examples of a task -> what a model reads, and batches of it.

Shapes: B inputs of a batch, L tokens of the longest, C outputs, H width.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.examples import Example
from evaluation.tasks import Kind, Task

Feature = dict[str, Any]
"""One input: the tokenizer's columns as lists of ids, and what else a batch of it has (see `Collator`)."""


def classification_features(
    task: Task, examples: Sequence[Example], tokenizer: Any, columns: Iterable[str], max_length: int
) -> list[Feature]:
    """One for each example, in order; what is too long loses tokens at the end of its longer text. `labels` beside."""
    texts = [list(part) for part in zip(*(example.texts for example in examples), strict=True)]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    kept = [name for name in columns if name in encoded]
    dtype = np.float32 if task.kind is Kind.REGRESSION else np.int64
    return [
        {name: encoded[name][row] for name in kept} | {"labels": np.asarray(example.label, dtype=dtype)}
        for row, example in enumerate(examples)
    ]


@dataclass(frozen=True)
class Collator:
    """Features -> one batch, padded to its longest.

    Token columns (B, L). labels (B,). start_positions, end_positions (B,). teacher_logits (B, C), of spans (B, 2, L)
    with -inf in the padding. teacher_pooled (B, H).
    """

    pad_id: int
    pad_type_id: int = 0

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(feature["input_ids"]) for feature in features)
        batch = {}
        for name in features[0]:
            values = [feature[name] for feature in features]
            if name in ("input_ids", "attention_mask", "token_type_ids"):
                fill = {"input_ids": self.pad_id, "token_type_ids": self.pad_type_id}.get(name, 0)
                batch[name] = torch.tensor([[*value, *[fill] * (longest - len(value))] for value in values])
            elif name == "teacher_logits" and values[0].ndim == 2:  # a position each
                padded = np.full((len(values), 2, longest), -np.inf, dtype=np.float32)
                for row, value in enumerate(values):
                    padded[row, :, : value.shape[1]] = value
                batch[name] = torch.from_numpy(padded)
            else:
                batch[name] = torch.from_numpy(np.stack(values))
        return batch


class Features(torch.utils.data.Dataset):
    """A list of features as torch's data loaders want it."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> Feature:
        return self.features[row]


INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Columns that are a model's; the others are the loss's."""


def subset(examples: Sequence[Example], count: int, *, shuffled: bool) -> list[Example]:
    """`count` of them (all for 0), in their order: drawn at random, always the same ones, or evenly spread."""
    if not count or count >= len(examples):
        return list(examples)
    if shuffled:
        rows = np.sort(np.random.default_rng(0).choice(len(examples), count, replace=False))
    else:
        rows = np.arange(count) * len(examples) // count
    return [examples[row] for row in rows]
