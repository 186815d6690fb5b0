"""Results as finetune.py leaves them, with figures of a test's choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.results import Cell, SplitUsed, TaskResult, TaskRun, write_result
from evaluation.tasks import GLUE, TASKS, Scores

CELL = Cell(batch_size=32, learning_rate=5e-5, epochs=3)
OTHER = Cell(batch_size=32, learning_rate=2e-5, epochs=3)
NINE = tuple(task.name for task in GLUE)
PUBLISHED = {  # Sanh et al. 2019, table 1, in the order of NINE
    "teacher": (0.563, 0.847, 0.886, 0.918, 0.896, 0.693, 0.927, 0.890, 0.535),
    "student": (0.513, 0.822, 0.875, 0.892, 0.885, 0.599, 0.913, 0.869, 0.563),
}


def everywhere(task: str, value: float) -> dict[str, dict[str, float]]:
    """Every metric of every dev split."""
    return {split: dict.fromkeys(TASKS[task].metrics, value) for split in TASKS[task].dev_splits}


def result(
    task: str,
    *seeds: float | Mapping[str, Scores],
    cells: Mapping[Cell, Sequence[float | Mapping[str, Scores]]] | None = None,
    train: tuple[int, int] = (1000, 1000),
    dev: tuple[int, int] = (200, 200),
    **more: Any,
) -> TaskResult:
    """One figure for each seed: a number for all metrics, or scores. `train` and `dev` are sizes: used, and of."""
    runs = [
        TaskRun(cell=cell, seed=seed, scores=everywhere(task, value) if isinstance(value, float) else value)
        for cell, values in (cells or {CELL: seeds}).items()
        for seed, value in enumerate(values)
    ]
    data = {
        split: SplitUsed(files=(f"data/{split}.tsv",), examples=size[0], of=size[1])
        for split, size in ((split, train if split == "train" else dev) for split in TASKS[task].splits)
    }
    fields: dict[str, Any] = {"model": "runs/a/student", "parameters": 66_400_000, "settings": {"max_length": 128}}
    return TaskResult(task=task, data=data, **{"runs": tuple(runs), **fields, **more})


def nine(model: str, **changed: TaskResult) -> list[TaskResult]:
    """The published figures of GLUE, except for the tasks that are given."""
    values = zip(NINE, PUBLISHED[model], strict=True)
    return [changed[task] if task in changed else result(task, value) for task, value in values]


def write(folder: Path, *results: TaskResult) -> Path:
    """As a results folder."""
    for one in results:
        (folder / one.task).mkdir(parents=True, exist_ok=True)
        write_result(one, folder / one.task)
    return folder
