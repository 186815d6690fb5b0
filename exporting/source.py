"""What --input is: a run, a student's folder or a fine-tuned one; its model, its tokenizer and what is known of them.

Models and tokenizers are transformers' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from evaluation.results import TaskResult
from evaluation.tasks import Task


class Head(Enum):
    """What a model says; the value is golden.json's word for it."""

    MASKED_LM = "mlm"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SPAN = "span"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the files beside a model say of its making. What is not there is empty."""

    run: Path | None = None
    """Folder of the run that distilled it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The run's config.json."""
    last_evaluation: Mapping[str, Any] = field(default_factory=dict)
    """The last line of metrics.jsonl that has held-out figures."""
    last_update: Mapping[str, Any] = field(default_factory=dict)
    """The last line of metrics.jsonl that has a loss."""
    attempts: tuple[Mapping[str, Any], ...] = ()
    """Of attempts.jsonl: every start of the run and how it ended."""
    result: TaskResult | None = None
    """Of fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that can be exported."""

    given: str
    """As --input had it."""
    folder: Path
    """With config.json and weights."""
    model: nn.Module
    """transformers', fp32, evaluation mode, CPU."""
    tokenizer: Any
    """transformers' fast one."""
    head: Head
    task: Task | None
    """None for a masked LM, and where it is not known."""
    labels: tuple[str, ...]
    """Class 0 first."""
    max_length: int
    """Tokens of the longest input: that of the fine-tuning, else all that the model has positions for."""
    input_names: tuple[str, ...]
    """Columns of the tokenizer that the model reads, in the order of `PlainModel.input_names`."""
    provenance: Provenance
