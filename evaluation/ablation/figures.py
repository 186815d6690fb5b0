"""The figures of an ablation: collected from the cells, differences taken seed by seed."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.ablation.plan import Cell, Plan
from evaluation.ablation.products import State, Status, read_heldout, read_json_file, read_tasks, status
from evaluation.ablation.settings import Settings
from evaluation.results import TaskResult
from evaluation.table_scores import score_of
from evaluation.tasks import TASKS

BySeed = Mapping[int, float]
MEAN = "mean"
"""Column of the mean over all tasks of fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of every student."""

    key: str
    title: str
    digits: int
    scale: float = 1.0
    """100 where fractions are shown in per cent."""
    more_is_better: bool = True


HELD_OUT = (
    Column(key="eval_mlm_loss", title="MLM loss", digits=3, more_is_better=False),
    Column(key="eval_mlm_accuracy", title="accuracy %", digits=2, scale=100.0),
    Column(key="eval_agreement", title="agreement %", digits=2, scale=100.0),
    Column(key="eval_distillation", title="KL", digits=4, more_is_better=False),
    Column(key="eval_cosine", title="1 - cos", digits=4, more_is_better=False),
)


def task_columns(plan: Plan) -> tuple[Column, ...]:
    """A column a task, and the mean over all."""
    if not plan.tasks:
        return ()
    each = (Column(key=task, title=TASKS[task].title, digits=1, scale=100.0) for task in plan.tasks)
    return (*each, Column(key=MEAN, title=f"mean of {len(plan.tasks)}", digits=2, scale=100.0))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure over seeds."""

    mean: float
    lowest: float
    highest: float
    seeds: int

    @property
    def stands_out(self) -> bool | None:
        """Of a difference: whether it is larger than the range of the seeds' differences; None with a single seed."""
        return abs(self.mean) > self.highest - self.lowest if self.seeds > 1 else None


BY_CHANCE = {2: 0.295, 3: 0.081, 4: 0.022, 5: 0.005}
"""Number of seeds -> how often a difference of nothing but noise stands out: the mean of so many normal values exceeds their
range. (The statistic is Lord's, Biometrika 34, 1947; these values are of 2 million draws each.)"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of the whole ablation."""

    values: Mapping[str, Mapping[str, BySeed]]
    """By cell, then column."""
    statuses: Mapping[Cell, Status]
    subsets: tuple[str, ...]
    """Tasks that were trained or scored on a part of their examples."""

    def spread(self, name: str, column: Column) -> Spread | None:
        """Over the seeds that have it; None where none has."""
        return _spread(self.values[name].get(column.key, {}).values())

    def difference(self, name: str, baseline: str, column: Column) -> Spread | None:
        """Of the pairs with the same seed."""
        own, other = (self.values[n].get(column.key, {}) for n in (name, baseline))
        return _spread(own[seed] - other[seed] for seed in own if seed in other)

    @property
    def missing(self) -> dict[Cell, Status]:
        return {cell: found for cell, found in self.statuses.items() if found.state is not State.FINISHED}


def collect(plan: Plan, settings: Settings) -> Figures:
    """From what cells left. Errors: ValueError for a damaged file, and for students scored on different texts."""
    values: dict[str, dict[str, dict[int, float]]] = {name: {} for name in plan.names}
    subsets: set[str] = set()
    scored: dict[str, Any] | None = None
    for cell in plan.cells:
        figures = read_heldout(cell, settings)
        if figures is not None:
            taken = (read_json_file(cell.folder / "heldout.json") or {})["settings"]
            if (scored := scored or taken) != taken:
                raise ValueError(
                    f"{cell.folder} was scored on another text or against another teacher than the cells before it. Run "
                    "the ablation again, which scores anew what is out of date"
                )
            for column in HELD_OUT:
                values[cell.name].setdefault(column.key, {})[cell.seed] = figures[column.key]
        results = read_tasks(cell, plan)
        subsets |= {task for task, result in results.items() if result.is_subset}
        for key, value in _scores(results, plan).items():
            values[cell.name].setdefault(key, {})[cell.seed] = value
    statuses = {cell: status(cell, plan, settings) for cell in plan.cells}
    return Figures(values=values, statuses=statuses, subsets=tuple(sorted(subsets)))


def _scores(results: Mapping[str, TaskResult], plan: Plan) -> dict[str, float]:
    """The headline of every task, median over its own seeds; the mean only of all tasks, each counting as in GLUE."""
    scores = {task: result.headline(result.chosen) for task, result in results.items()}
    if plan.tasks and len(results) == len(plan.tasks):
        scores[MEAN] = statistics.fmean(score_of(result).value for result in results.values())
    return scores


def _spread(values: Any) -> Spread | None:
    numbers = list(values)
    if not numbers:
        return None
    if any(math.isnan(value) for value in numbers):
        return Spread(mean=math.nan, lowest=math.nan, highest=math.nan, seeds=len(numbers))
    return Spread(
        mean=statistics.fmean(numbers), lowest=min(numbers), highest=max(numbers), seeds=len(numbers)
    )  # fmean of infinities is one, or nan
