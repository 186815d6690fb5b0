"""One result of finetune.py -> what a table shows of it: a score, its spread over seeds, and what there is to know of it."""

import math
from dataclasses import dataclass

from evaluation.results import TaskResult
from evaluation.tasks import GLUE, TASKS, Task, headline_score, task_score


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The headlines of the seeds of the cell that was chosen."""

    median: float
    lowest: float
    highest: float
    """Of those that are defined."""
    seeds: int
    undefined: int
    """Seeds whose headline is nan."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model on one task."""

    value: float
    """What stands for the task: what counts in GLUE (`task_score`), accuracy of IMDb, F1 of SQuAD."""
    parts: tuple[float, ...]
    """What a table shows: MNLI matched and mismatched, SQuAD's exact match and F1, else `value` alone."""
    spread: Spread | None = None
    """None for figures of others."""
    is_subset: bool = False
    """Whether it was trained or evaluated on less than everything."""
    remarks: tuple[str, ...] = ()
    """Subsets, undefined metrics, a task teacher; each a sentence that names the task."""


def score_of(result: TaskResult) -> Score:
    """Of the chosen cell, medians over its seeds."""
    task, medians = TASKS[result.task], result.median()
    value = task_score(task, medians) if task in GLUE else headline_score(task, medians)
    parts: tuple[float, ...] = (value,)
    if len(task.dev_splits) > 1:
        parts = tuple(medians[split][task.headline] for split in task.dev_splits)
    elif task not in GLUE:
        parts = tuple(medians[task.dev_splits[0]][metric] for metric in task.metrics)
    return Score(
        value=value,
        parts=parts,
        spread=_spread(result),
        is_subset=result.is_subset,
        remarks=tuple(_remarks(task, result)),
    )


def _spread(result: TaskResult) -> Spread:
    headlines = result.headlines()
    defined = [value for value in headlines if not math.isnan(value)] or [math.nan]
    return Spread(
        median=result.headline(result.chosen),
        lowest=min(defined),
        highest=max(defined),
        seeds=len(headlines),
        undefined=sum(math.isnan(value) for value in headlines),
    )


def _remarks(task: Task, result: TaskResult) -> list[str]:
    """What there is to know of a figure beside its value."""
    found = []
    parts = [
        f"{'trained' if split == 'train' else 'evaluated'} on {used.examples:,} of {used.of:,}"
        + (f" ({split})" if len(task.dev_splits) > 1 and split != "train" else "")
        for split, used in result.data.items()
        if used.examples < used.of
    ]
    if parts:
        found.append(f"{task.title}: {', '.join(parts)}")
    if result.teacher:
        found.append(f"{task.title}: a second distillation, taught by {result.teacher}")
    seeds: dict[str, list[int]] = {}
    for run in result.chosen_runs:
        for key, text in run.remarks.items():
            seeds.setdefault(f"{task.title}, {key}: {text}", []).append(run.seed)
    for text, some in seeds.items():
        found.append(f"{text} (seed {', '.join(map(str, some))})")
    return found
