"""What is read of a task: labelled texts, and questions with their answers."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """Where a context answers a question."""

    text: str
    start: int
    """Characters of the context before it."""


@dataclass(frozen=True)
class Example:
    """One text or a pair of them, and what a model should say of it."""

    id: str
    """The row of its split, from 0; for SQuAD the question's own id."""
    texts: tuple[str, ...]
    """As they are published, in the order of `Task.text_columns`."""
    label: int | float | tuple[Answer, ...]
    """A class, a number, or all gold answers of a question (one in training)."""


@dataclass(frozen=True)
class Split:
    """The examples of a split."""

    examples: tuple[Example, ...]
    files: tuple[Path, ...]
    """Where they were read; none for a data set of the hub."""
    skipped: tuple[str, ...] = ()
    """The rows that were left out, each with its place and the reason; only QQP's files have any."""
