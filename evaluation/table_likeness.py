"""Whether two results can be compared: in what else than the model they differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.results import Cell, SplitUsed, TaskResult
from evaluation.tasks import TASKS


def other_dev_set(student: TaskResult, teacher: TaskResult) -> str:
    """Why no ratio of the two means anything; empty where the dev sets are of one size."""
    for split in TASKS[student.task].dev_splits:
        mine, theirs = student.data[split], teacher.data[split]
        if (mine.examples, mine.of) != (theirs.examples, theirs.of):
            return f"evaluated on {_size(mine)} ({split}), the teacher on {_size(theirs)}"
    return ""


def differences(student: TaskResult, teacher: TaskResult) -> tuple[str, ...]:
    """Each as a sentence that starts with the student's side. Refused are those of `other_dev_set` alone."""
    found = []
    mine, theirs = student.data["train"], teacher.data["train"]
    if (mine.examples, mine.of) != (theirs.examples, theirs.of):
        found.append(f"trained on {_size(mine)}, the teacher on {_size(theirs)}")
    for split in TASKS[student.task].splits:
        names = [" and ".join(_names(result.data[split])) for result in (student, teacher)]
        if names[0] != names[1]:
            found.append(f"{split} is of {names[0]}, the teacher's of {names[1]}")
    for key in dict.fromkeys((*student.settings, *teacher.settings)):
        values = [_setting(result.settings, key) for result in (student, teacher)]
        if values[0] != values[1]:
            found.append(f"{key} is {values[0]}, the teacher's {values[1]}")
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


def _names(split: SplitUsed) -> list[str]:
    """Without folders: the same files may lie elsewhere."""
    return [file if file.startswith("hf:") else Path(file).name for file in split.files]


def _setting(settings: Any, key: str) -> str:
    return str(settings[key]) if key in settings else "not set"


def _grid(cells: Sequence[Cell]) -> str:
    """The values of each hyperparameter."""
    batches, rates, epochs = (
        "/".join(f"{value:g}" for value in sorted({getattr(cell, name) for cell in cells}))
        for name in ("batch_size", "learning_rate", "epochs")
    )
    return f"batch size {batches}, learning rate {rates}, {epochs} epochs ({len(cells)} cell{'s' if len(cells) > 1 else ''})"
