"""The table of tasks as Markdown and as JSON. The figures are those of evaluation.table_figures, rounded here alone."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.published import SOURCE
from evaluation.sections import hardware, table
from evaluation.table_figures import Retention, Table
from evaluation.table_notes import METRICS, Notes, explained, measures, percent, shown, span, titles, without_data
from evaluation.table_results import Side
from evaluation.tasks import GLUE, TASKS, Task

_PARTS = {"mnli": " m/mm", "squad": " EM/F1"}
_DETAILS = (
    "task",
    "model",
    "headline",
    "median",
    "lowest to highest",
    "seeds",
    "runs",
    "batch size, learning rate, epochs",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A comparison, and where it is from."""

    table: Table
    sides: tuple[Side, ...]
    remarks: tuple[str, ...] = ()
    published: Table | None = None
    """The paper's rows, where they were asked for."""

    def markdown(self, command: str) -> str:
        """A section: the table, its footnotes, how the figures came about, and what each was taken from."""
        notes = Notes()
        columns = [TASKS[task] for task in self.table.tasks]
        header = ["model", *(f"{task.title}{_PARTS.get(task.name, '')}" for task in columns if task in GLUE)]
        header += [self.table.macro.title] if self.table.macro else []
        header += [f"{task.title}{_PARTS.get(task.name, '')}" for task in columns if task not in GLUE]
        rows = [row for some in (self.table, self.published) if some for row in _rows(some, notes)]
        lines = [
            f"## {time.strftime('%Y-%m-%d %H:%M')}: GLUE, IMDb and SQuAD, {' and '.join(self.table.models)}",
            "",
            f"    {command}",
            "",
            f"Written on {hardware()}. " + ". ".join(map(self._source, self.sides)) + ".",
            "",
            *table(header, rows),
            "",
            *notes.lines(),
            *(f"- {remark}." for remark in self.remarks),
            *(f"- {sentence}" for sentence in self._explained(columns)),
            "",
            *table(_DETAILS, [_detail_row(self.table, task, model) for task, model in self._pairs()]),
        ]
        return "\n".join(lines) + "\n"

    def content(self, command: str) -> dict[str, Any]:
        """The same figures for JSON, not rounded."""
        return {
            "command": command,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "hardware": hardware(),
            "sources": {side.name: {"folder": str(side.folder), "results": str(side.results)} for side in self.sides},
            **_content(self.table),
            "remarks": self.remarks,
            "published": {"source": SOURCE, **_content(self.published)} if self.published else None,
        }

    def _pairs(self) -> list[tuple[str, str]]:
        return [(t, m) for t in self.table.tasks for m in self.table.models if t in self.table.scores[m]]

    def _source(self, side: Side) -> str:
        results = self.table.results[side.name].values()
        sizes = sorted(result.parameters for result in results)
        millions = " to ".join(dict.fromkeys(f"{size / 1e6:.1f}" for size in (sizes[0], sizes[-1])))
        models = " and ".join(dict.fromkeys(result.model for result in results))
        return f"{side.name}: {models}, {millions} M parameters, results in {side.results}"

    def _explained(self, columns: Sequence[Task]) -> list[str]:
        """What a reader has to know of all of the figures."""
        found = [measures(columns), explained([self.table.results[model][task] for task, model in self._pairs()])]
        absent = [f"{model} ({', '.join(titles(some))})" for model, some in self.table.missing.items() if some]
        if absent:
            found.append(f"No result of: {'; '.join(absent)}.{without_data(self.table)}")
        macro = self.table.macro
        if any(task in GLUE for task in columns) and not macro:
            found.append("**No mean over GLUE's tasks**: there is none that all models have.")
        elif macro and not macro.is_glue_score:
            missing = [
                TASKS[task].title + ("" if models == self.table.models else f" ({', '.join(models)})")
                for task, models in macro.missing.items()
            ]
            found.append(
                f"**The mean is not GLUE's score**, which is of all nine tasks. Missing: {', '.join(missing)}. It is over "
                "the tasks that all models here have, and can be compared only with a mean over the same."
            )
        if self.published:
            found.append(
                f"Rows of {SOURCE} are their figures, not measured here: medians of 5 runs on dev, one figure for MNLI; "
                "(D): a second distillation during fine-tuning. Their retention and their mean, over the same tasks as "
                "ours, are computed from them."
            )
        return found


def _rows(some: Table, notes: Notes) -> list[list[str]]:
    """A row for each model and, below each student, its retention."""
    rows = []
    for model in some.models:
        scores, macro = some.scores[model], some.macro
        cells = {
            task: shown(scores[task].parts) + notes.marks(scores[task].remarks)
            if task in scores
            else _absent(some, task)
            for task in some.tasks
        }
        name = model.replace("|", "\\|")
        mean = "-"
        if macro and model in macro.scores:
            mean = percent(macro.scores[model]) + notes.marks(macro.remarks[model])
        rows.append([name, *_ordered(some, cells, mean)])
        if model == some.teacher:
            continue
        kept = {task: _retained(some.retention[model].get(task), notes) for task in some.tasks}
        total = _retained(macro.retention.get(model) if macro else None, notes)
        rows.append([f"retention of {name}, %", *_ordered(some, kept, total)])
    return rows


def _ordered(some: Table, cells: dict[str, str], mean: str) -> list[str]:
    """GLUE's tasks, their mean, the others."""
    glue = {task.name for task in GLUE}
    return [
        *(cells[task] for task in some.tasks if task in glue),
        *([mean] if some.macro else []),
        *(cells[task] for task in some.tasks if task not in glue),
    ]


def _retained(retention: Retention | None, notes: Notes) -> str:
    if retention is None:
        return "-"
    why = (f"Retention is undefined: {retention.why}",) if retention.why else ()
    differ = (
        (f"The student differs in more than the model: {'; '.join(retention.remarks)}",) if retention.remarks else ()
    )
    parts = retention.parts if not math.isnan(retention.value) else (math.nan,)
    return shown(parts) + notes.marks((*why, *differ))


def _absent(some: Table, task: str) -> str:
    if not some.results:
        return "-"  # others' rows: what they do not report
    return "no data" if task in some.no_data else "no result"


def _detail_row(some: Table, task: str, model: str) -> list[str]:
    spread, result = some.scores[model][task].spread, some.results[model][task]
    assert spread is not None, "only figures of ours have details"
    cell = result.chosen
    undefined = f" ({spread.undefined} undefined)" if spread.undefined else ""
    return [
        TASKS[task].title,
        model.replace("|", "\\|"),
        METRICS[TASKS[task].headline],
        percent(spread.median),
        f"{percent(spread.lowest)} to {percent(spread.highest)}{undefined}" if spread.seeds > 1 else "one seed",
        str(spread.seeds),
        f"{len(result.runs)} of {span([len(result.by_cell)], 'cell')}",
        f"{cell.batch_size}, {cell.learning_rate:g}, {cell.epochs}",
    ]


def _content(some: Table) -> dict[str, Any]:
    """The dataclass as it is, but for the results, of which the runs are left to their files."""
    raw = asdict(some)
    raw["no_data"] = sorted(some.no_data)
    if some.macro:
        raw["macro"] |= {"title": some.macro.title, "is_glue_score": some.macro.is_glue_score}
    raw["results"] = {
        model: {
            task: {
                "model": result.model,
                "parameters": result.parameters,
                "teacher": result.teacher,
                "settings": dict(result.settings),
                "data": {split: asdict(used) for split, used in result.data.items()},
                "chosen": asdict(result.chosen),
                "cells": len(result.by_cell),
                "runs": len(result.runs),
                "headlines": result.headlines(),
            }
            for task, result in by_task.items()
        }
        for model, by_task in some.results.items()
    }
    return raw
