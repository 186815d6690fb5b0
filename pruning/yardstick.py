"""What a model is measured by, before and after: a task's dev set, or held-out text; and what importance is taken from.

Shapes: B inputs of a batch, L tokens, M masked positions, H width, V vocabulary.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.speed_texts import spread
from evaluation.tasks import Kind, Task
from exporting.plain import PlainModel, plain_model
from finetuning.config import FinetuneConfig
from finetuning.features import Feature
from finetuning.material import Part, collator_of, make_inputs, model_columns, read_parts
from finetuning.objective import Weights, components, span_logits
from finetuning.scoring import score_split
from pruning.config import PruneConfig
from pruning.heads import Importance, head_importance, heads_left
from pruning.subject import Subject
from pruning.vocabulary import Ids

INPUTS_AT_A_TIME = 16

Scores = dict[str, float]
"""Metric -> value, the one that matters first."""


class Yardstick(ABC):
    """Of one subject. A smaller vocabulary is told to `score`: its tokenizer, and the new id of every old one."""

    title: str
    """What is measured, for people."""
    num_examples: int
    """Inputs that importance is taken from."""

    @abstractmethod
    def importance(self, model: nn.Module) -> Importance:
        """Of the heads that are left in one of transformers' models, before its vocabulary is trimmed."""

    @abstractmethod
    def score(self, model: nn.Module, tokenizer: Any, new_ids: Ids | None) -> Scores:
        """Of one of transformers' models, read back or changed in memory."""

    @abstractmethod
    def inputs(self, count: int) -> list[list[int]]:
        """Token ids of some of the measured inputs, spread evenly, special tokens included."""

    @abstractmethod
    def texts(self) -> list[str]:
        """What was read, where it was text."""


class TaskYardstick(Yardstick):
    """Dev splits, importance from training examples."""

    def __init__(self, config: PruneConfig, subject: Subject) -> None:
        assert subject.task is not None
        self.task: Task = subject.task
        self.subject = subject
        self.parts = read_parts(
            FinetuneConfig(
                task=(self.task.name,),
                model=config.model,
                data=config.data,
                train_data=config.train_data,
                train_examples=config.examples,
                eval_examples=config.eval_examples,
            ),
            self.task,
        )
        used = [self.parts[split].used for split in self.task.dev_splits]
        counts = " and ".join(
            f"{part.examples:,}{f' of {part.of:,}' if part.examples < part.of else ''}" for part in used
        )
        self.title = f"{self.task.title}, {counts} dev examples"
        self.num_examples = self.parts["train"].used.examples

    def importance(self, model: nn.Module) -> Importance:
        features = self._features(self.parts["train"], self.subject.tokenizer, model, is_train=True)
        collate = collator_of(self.subject.tokenizer)
        starts = range(0, len(features), INPUTS_AT_A_TIME)
        batches = (collate(features[start : start + INPUTS_AT_A_TIME]) for start in starts)
        return head_importance(
            plain_model(model), heads_left(model.config), batches, lambda batch: len(batch["input_ids"]), self._loss
        )

    def _loss(self, plain: PlainModel, batch: Mapping[str, Tensor]) -> Tensor:
        outputs = plain(*(batch[name] for name in plain.input_names))
        is_span = self.task.kind is Kind.SPAN
        logits = span_logits(outputs[0], outputs[1], batch["attention_mask"]) if is_span else outputs[0]
        return components(self.task.kind, logits, batch, Weights(), None)["task"] * len(batch["input_ids"])

    def score(self, model: nn.Module, tokenizer: Any, new_ids: Ids | None) -> Scores:
        del new_ids  # texts are tokenized anew
        found: dict[str, Scores] = {}
        with tempfile.TemporaryDirectory() as folder:
            for split in self.task.dev_splits:
                part = self.parts[split]
                inputs = make_inputs(
                    self.task, part.examples, tokenizer, model_columns(model), self.subject.max_length, is_train=False
                )
                collator = collator_of(tokenizer)
                scored = score_split(model, self.task, split, part, inputs, collator, None, Path(folder))
                found[split] = dict(scored.scores)
        order = sorted(self.task.metrics, key=lambda metric: metric != self.task.headline)
        several = len(found) > 1
        return {
            f"{metric} ({split})" if several else metric: float(found[split][metric])
            for metric in order
            for split in found
        }

    def inputs(self, count: int) -> list[list[int]]:
        features = self._features(
            self.parts[self.task.dev_splits[0]], self.subject.tokenizer, self.subject.model, is_train=False
        )
        return [list(features[row]["input_ids"]) for row in spread(len(features), count)]

    def texts(self) -> list[str]:
        return [
            text for split in self.task.dev_splits for example in self.parts[split].examples for text in example.texts
        ]

    def _features(self, part: Part, tokenizer: Any, model: nn.Module, is_train: bool) -> list[Feature]:
        length = self.subject.max_length
        return make_inputs(
            self.task, part.examples, tokenizer, model_columns(model), length, is_train=is_train
        ).features


def padded(rows: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> (B, L) ids and mask; padding is masked, so that its id does not matter."""
    rows = list(rows)
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, mask
