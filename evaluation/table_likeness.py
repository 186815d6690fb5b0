"""Whether two results can be compared: in what else than the model they differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.results import Cell, SplitUsed, TaskResult
from evaluation.tasks import TASKS

_OF_THE_MODEL = ("weights", "init", "student_layers", "teacher_weights")
"""Settings that say which model it is, and differ by right."""
_EXAMPLES = "examples"
"""The setting with a digest of each split."""


def other_dev_set(student: TaskResult, teacher: TaskResult) -> str:
    """Why no ratio of the two means anything; empty where the dev sets are of one size."""
    for split in TASKS[student.task].dev_splits:
        mine, theirs = student.data[split], teacher.data[split]
        if (mine.examples, mine.of) != (theirs.examples, theirs.of):
            return f"evaluated on {_size(mine)} ({split}), the teacher on {_size(theirs)}"
        if _has_other_examples(student, teacher, split):
            return f"evaluated on other examples than the teacher, though as many ({split})"
    return ""


def differences(student: TaskResult, teacher: TaskResult) -> tuple[str, ...]:
    """Each as a sentence that starts with the student's side. Refused are those of `other_dev_set` alone."""
    found = []
    mine, theirs = student.data["train"], teacher.data["train"]
    if (mine.examples, mine.of) != (theirs.examples, theirs.of):
        found.append(f"trained on {_size(mine)}, the teacher on {_size(theirs)}")
    elif _has_other_examples(student, teacher, "train"):
        found.append("trained on other examples than the teacher, though as many")
    if student.teacher != teacher.teacher:
        found.append(
            f"taught by {student.teacher or 'labels alone'}, the teacher by {teacher.teacher or 'labels alone'}"
        )
    found += _other_settings(student.settings, teacher.settings)
    counts = [len(result.chosen_runs) for result in (student, teacher)]
    if counts[0] != counts[1]:
        found.append(f"{counts[0]} seed{'s' if counts[0] > 1 else ''}, the teacher {counts[1]}")
    if set(student.by_cell) != set(teacher.by_cell):
        found.append(f"chosen from {_grid(list(student.by_cell))}, the teacher from {_grid(list(teacher.by_cell))}")
    return tuple(found)


def _size(split: SplitUsed) -> str:
    return (
        f"all {split.of:,} examples" if split.examples == split.of else f"{split.examples:,} of {split.of:,} examples"
    )


def _has_other_examples(student: TaskResult, teacher: TaskResult, split: str) -> bool:
    """As far as both sides say."""
    known = [result.settings.get(_EXAMPLES) for result in (student, teacher)]
    digests = [some.get(split) for some in known if isinstance(some, Mapping)]
    return len(set(digests)) == 2 and None not in digests


def _other_settings(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in dict.fromkeys((*mine, *theirs)) if name not in (*_OF_THE_MODEL, _EXAMPLES)]
    for name in names:
        if name in mine and name in theirs and str(mine[name]) != str(theirs[name]):
            yield f"{name} is {mine[name]}, the teacher's {theirs[name]}"
    for whom, some, others in (("student", mine, theirs), ("teacher", theirs, mine)):
        alone = [f"{name} {some[name]}" for name in names if name in some and name not in others]
        if alone:
            yield f"for the {whom} alone: {', '.join(alone)}"


def _grid(cells: Sequence[Cell]) -> str:
    """The values of each hyperparameter."""
    batches, rates, epochs = (
        "/".join(f"{value:g}" for value in sorted({getattr(cell, name) for cell in cells}))
        for name in ("batch_size", "learning_rate", "epochs")
    )
    return f"batch size {batches}, learning rate {rates}, {epochs} epochs ({len(cells)} cell{'s' if len(cells) > 1 else ''})"
