"""What fine-tuning leaves behind: RESULTS/TASK/result.json, written by finetune.py and read by every table and report.

A file holds one model on one task: every run (a cell of the grid with one seed), and what follows from them.
"""

import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.tasks import TASKS, Scores, Task, headline_score

FILE = "result.json"
VERSION = 1


@dataclass(frozen=True, order=True, kw_only=True)
class Cell:
    """A point of the grid of hyperparameters."""

    batch_size: int
    learning_rate: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """One fine-tuning."""

    cell: Cell
    seed: int
    scores: Mapping[str, Scores]
    """By dev split, then metric: fractions; nan where undefined."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """What there is to know of a score, for example why it is nan."""
    train_loss: float = math.nan
    """Mean of the training loss over the run."""
    seconds: float = math.nan
    """Of training."""


@dataclass(frozen=True, kw_only=True)
class SplitUsed:
    """What was read of a split."""

    files: tuple[str, ...]
    """Or hf:NAME."""
    examples: int
    of: int
    """Examples that the split has; more than `examples` where a subset was asked for."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One model on one task."""

    task: str
    """A name of `evaluation.tasks.TASKS`."""
    model: str
    """Folder or hub id that was fine-tuned, or how the model was made."""
    parameters: int
    teacher: str = ""
    """The task teacher of a second distillation."""
    settings: Mapping[str, Any]
    """Whatever else gave the figures: lengths, precision, temperature and weights of a second distillation."""
    data: Mapping[str, SplitUsed]
    """By split, train among them."""
    runs: tuple[TaskRun, ...]
    """All of them, in the order of the grid."""
    saved: str = ""
    """Folder of the fine-tuned model, relative to the file; empty if none was kept."""

    @property
    def is_subset(self) -> bool:
        """Whether it was trained or evaluated on less than everything."""
        return any(split.examples < split.of for split in self.data.values())

    @property
    def chosen(self) -> Cell:
        """The cell with the best median headline over its seeds, as the published figures are chosen; on dev."""
        return max(self.by_cell, key=lambda cell: _sortable(self.headline(cell)))

    @property
    def by_cell(self) -> dict[Cell, list[TaskRun]]:
        cells: dict[Cell, list[TaskRun]] = {}
        for run in self.runs:
            cells.setdefault(run.cell, []).append(run)
        return cells

    @property
    def chosen_runs(self) -> list[TaskRun]:
        """One for each seed."""
        return self.by_cell[self.chosen]

    def headline(self, cell: Cell) -> float:
        """Median over the cell's seeds; nan where one is, since a median without it flatters."""
        return _median([headline_score(TASKS[self.task], run.scores) for run in self.by_cell[cell]])

    def median(self) -> dict[str, dict[str, float]]:
        """Of the chosen cell: by split and metric, each the median over seeds."""
        runs = self.chosen_runs
        return {
            split: {metric: _median([run.scores[split][metric] for run in runs]) for metric in scores}
            for split, scores in runs[0].scores.items()
        }

    def headlines(self) -> list[float]:
        """The headline of every seed of the chosen cell."""
        return [headline_score(TASKS[self.task], run.scores) for run in self.chosen_runs]


def write_result(result: TaskResult, folder: Path) -> None:
    """Atomically. Errors: OSError."""
    write_json({"version": VERSION, **asdict(result)}, folder / FILE)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Atomically, on the disk before it takes the place of what was there; nan as null. Errors: OSError."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_without_nan(content), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_result(folder: Path) -> TaskResult:
    """Errors: FileNotFoundError, or ValueError for a file that is none of ours."""
    path = folder / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("version") != VERSION or raw["task"] not in TASKS or not raw["runs"]:
            raise ValueError("another version or task")
        raw["runs"] = tuple(read_run(TASKS[raw["task"]], run) for run in raw["runs"])
        raw["data"] = {
            split: SplitUsed(**{**_checked(used, examples=int, of=int), "files": tuple(map(str, used["files"]))})
            for split, used in raw["data"].items()
        }
        missing = set(TASKS[raw["task"]].splits) - set(raw["data"])
        if missing:
            raise ValueError(f"it does not say what was read of {' and '.join(sorted(missing))}")
        return TaskResult(**_checked(raw, model=str, parameters=int, teacher=str, settings=dict, saved=str))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no result of finetune.py ({error}). Fine-tune again, or delete it") from None


def read_results(folder: Path) -> Iterator[TaskResult]:
    """Of every task that the folder has results of, in the tables' order. Errors: as `read_result`."""
    for task in TASKS:
        if (folder / task / FILE).is_file():
            result = read_result(folder / task)
            if result.task != task:
                raise ValueError(
                    f"{folder / task / FILE} is a result of {result.task}. Move it to {folder / result.task}"
                )
            yield result


def read_run(task: Task, raw: dict[str, Any]) -> TaskRun:
    """Errors: KeyError, TypeError or ValueError where something is missing."""
    scores = {
        split: {metric: _fraction(metric, raw["scores"][split][metric]) for metric in task.metrics}
        for split in task.dev_splits
    }
    numbers = {key: math.nan if raw[key] is None else float(raw[key]) for key in ("train_loss", "seconds")}
    cell = Cell(**_checked(raw["cell"], batch_size=int, learning_rate=int | float, epochs=int))
    _checked(raw, seed=int, remarks=dict)
    return TaskRun(cell=cell, seed=raw["seed"], scores=scores, remarks=raw["remarks"], **numbers)


def _checked(raw: dict[str, Any], **kinds: Any) -> dict[str, Any]:
    """Errors: ValueError where a field is of another kind, KeyError where it is missing."""
    for name, kind in kinds.items():
        if not isinstance(raw[name], kind):
            raise ValueError(f"{name} is {raw[name]!r}")
    return raw


def _fraction(metric: str, value: float | None) -> float:
    fraction = math.nan if value is None else float(value)
    if abs(fraction) > 1 + 1e-6:  # a correlation of 1 may have been rounded up
        raise ValueError(f"{metric} = {value} is no fraction")
    return fraction


def _median(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else statistics.median(values)


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _without_nan(value: Any) -> Any:
    """JSON has no nan: null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    return [_without_nan(part) for part in value] if isinstance(value, list | tuple) else value
