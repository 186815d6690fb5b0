"""What the runs on a task share: its examples, their features, the soft targets of a teacher."""

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.examples import Example, Split
from evaluation.results import SplitUsed
from evaluation.task_data import read_split, source_of
from evaluation.tasks import Kind, Task
from finetuning.config import FinetuneConfig
from finetuning.features import INPUTS, Collator, Feature, classification_features, subset
from finetuning.predicting import predict
from finetuning.spans import Window, span_features
from finetuning.starts import load_task_model, load_tokenizer, num_positions


@dataclass(frozen=True)
class Part:
    """A split, or what is used of it."""

    examples: list[Example]
    used: SplitUsed
    digest: str
    """Of the texts and labels that are used."""
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """A part as a model reads it."""

    features: list[Feature]
    windows: list[Window]
    """Of spans."""


def read_parts(config: FinetuneConfig, task: Task) -> dict[str, Part]:
    """By split, train first. A subset as large as its split or larger is all of it. Errors: those of `read_split`."""
    parts = {}
    for name in task.splits:
        is_train = name == "train"
        source = source_of(task, (is_train and config.train_data) or config.data)
        split = read_split(task, name, source)
        count = config.train_examples if is_train else config.eval_examples
        parts[name] = _part(split, subset(split.examples, count, shuffled=is_train), source)
    return parts


def _part(split: Split, examples: list[Example], source: str) -> Part:
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(repr((example.id, example.texts, example.label)).encode("utf-8", "surrogatepass"))
    files = tuple(map(str, split.files)) or (source,)
    used = SplitUsed(files=files, examples=len(examples), of=len(split.examples))
    return Part(examples, used, hashed.hexdigest()[:16], split.skipped)


def make_inputs(
    task: Task, examples: Sequence[Example], tokenizer: Any, columns: Sequence[str], max_length: int, is_train: bool
) -> Inputs:
    """Errors: ValueError where a length leaves no room."""
    if task.kind is Kind.SPAN:
        return Inputs(*span_features(examples, tokenizer, columns, max_length, with_answers=is_train))
    return Inputs(classification_features(task, examples, tokenizer, columns, max_length), [])


def collator_of(tokenizer: Any) -> Collator:
    return Collator(pad_id=tokenizer.pad_token_id, pad_type_id=tokenizer.pad_token_type_id)


def teach(
    folder: Path,
    task: Task,
    part: Part,
    student: Inputs,
    *,
    max_length: int,
    with_pooled: bool,
    dtype: torch.dtype | None,
) -> list[Feature]:
    """Together: the student's training features with the logits (and first hidden states) of a teacher beside them.

    The teacher reads every example once, with its own tokenizer, instead of once an epoch, seed and cell: it has no
    dropout, so it always says the same. Errors: ValueError for another task's teacher, or, for spans, another tokenizer's.
    """
    teacher, tokenizer = load_task_model(folder, task), load_tokenizer(folder)
    length = min(max_length, num_positions(teacher.config))
    inputs = make_inputs(task, part.examples, tokenizer, model_columns(teacher), length, is_train=True)
    if task.kind is Kind.SPAN and [f["input_ids"] for f in inputs.features] != [
        f["input_ids"] for f in student.features
    ]:
        raise ValueError(
            f"{folder} reads other tokens than the student: soft starts and ends need the same tokenizer and max_length"
        )
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    logits, pooled = predict(
        teacher.to(device), task.kind, inputs.features, collator_of(tokenizer), dtype, with_pooled=with_pooled
    )
    taught = [feature | {"teacher_logits": value} for feature, value in zip(student.features, logits, strict=True)]
    if with_pooled:
        taught = [feature | {"teacher_pooled": value} for feature, value in zip(taught, pooled, strict=True)]
    return taught


def model_columns(model: Any) -> tuple[str, ...]:
    """Of a tokenizer's columns, those that the model reads: DistilBERT has no token types, RoBERTa only one."""
    known = inspect.signature(model.forward).parameters
    num_types = getattr(getattr(model, "config", None), "type_vocab_size", 0)
    return tuple(name for name in INPUTS if name in known and (name != "token_type_ids" or num_types > 1))
