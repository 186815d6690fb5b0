"""The words around the table of tasks: its footnotes, and how its figures came about."""

import math
from collections.abc import Iterable, Sequence

from evaluation.results import TaskResult
from evaluation.table_figures import Table
from evaluation.tasks import IMDB, SQUAD, TASKS, Task

METRICS = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson",
    "spearman": "Spearman",
}
"""As they are written."""


class Notes:
    """Footnotes: the same sentence has the same number wherever it belongs."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, sentences: Iterable[str]) -> str:
        """What follows a cell: ' [1][3]'."""
        numbers = sorted({self._numbers.setdefault(sentence, len(self._numbers) + 1) for sentence in sentences})
        return f" {''.join(f'[{number}]' for number in numbers)}" if numbers else ""

    def lines(self) -> list[str]:
        return [f"- [{number}] {sentence.rstrip('.')}." for sentence, number in self._numbers.items()]


def shown(parts: Sequence[float]) -> str:
    return " / ".join(map(percent, parts))


def percent(fraction: float) -> str:
    return "undefined" if math.isnan(fraction) else f"{round(100 * fraction, 1) + 0.0:.1f}"  # + 0.0: no -0.0


def titles(tasks: Iterable[str]) -> list[str]:
    return [TASKS[task].title for task in tasks]


def without_data(some: Table) -> str:
    names = titles(task for task in some.tasks if task in some.no_data)
    return f" There is no data of {', '.join(names)}." if names else ""


def measures(columns: Sequence[Task]) -> str:
    """Which metrics the cells show."""
    kinds: dict[str, list[str]] = {}
    for task in columns:
        what = " and ".join(METRICS[metric] for metric in task.metrics)
        if len(task.metrics) > 1 and task is not SQUAD:
            what = f"the mean of {what}, as GLUE counts it"
        kinds.setdefault(what, []).append(task.title)
    listed = "; ".join(f"{', '.join(names)}: {what}" for what, names in kinds.items())
    of = "In per cent, on dev" + (" (IMDb: test)" if IMDB in columns else "")
    halves = " MNLI's two dev sets count as their mean." if any(len(task.dev_splits) > 1 for task in columns) else ""
    return (
        f"{of}. {listed}.{halves} Retention is student / teacher, of the mean the ratio of the means, and counted from 0: "
        "who always says the most frequent class retains much of an accuracy, and a teacher near that shows little."
    )


def explained(results: Sequence[TaskResult]) -> str:
    """What the published protocol does to a figure."""
    seeds = [len(result.chosen_runs) for result in results]
    cells = [len(result.by_cell) for result in results]
    runs = [len(result.runs) for result in results]
    text = f"Each figure is the median over {span(seeds, 'seed')} of one cell of the grid of hyperparameters"
    if max(cells) > 1:
        text += (
            f", the best of {span(cells, 'cell')}, so it is taken from {span(runs, 'run')}. The cell was chosen for each "
            "task and model on dev, by the median headline, as the authors of BERT chose theirs (the DistilBERT paper "
            "reports medians of 5 seeds on dev and names no grid): the examples that chose it are those that it is scored "
            "on, which flatters, the more so the larger the grid and the smaller the dev set."
        )
    else:
        text += f", and there is only one, so nothing was chosen on dev ({span(runs, 'run')} a figure)."
    if min(seeds) == 1:
        text += " **Where there is one seed, nothing is known of the spread.**"
    return text


def span(counts: Sequence[int], what: str) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}{f' to {high:,}' if high > low else ''} {what}{'s' if high > 1 else ''}"
