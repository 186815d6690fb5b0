"""The tables of an ablation as Markdown, and its figures as JSON."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.ablation.figures import BY_CHANCE, HELD_OUT, Column, Figures, Spread, task_columns
from evaluation.ablation.plan import Plan
from evaluation.ablation.settings import Settings, differences
from evaluation.published import SOURCE
from evaluation.sections import table
from evaluation.tasks import GLUE, TASKS

PUBLISHED: Mapping[tuple[str, Any], float] = {
    ("weight_distillation", 0.0): -2.96,
    ("weight_cosine", 0.0): -1.46,
    ("weight_mlm", 0.0): -0.31,
    ("student_init", "random"): -3.69,
}
"""The one flag in which a cell differs from the triple loss -> points of GLUE (Sanh et al. 2019, arXiv:1910.01108, table
4)."""
MISSING = "missing"

NOTES = """\
Every student is scored after its last update by one procedure, whatever it was trained with: the same held-out
sequences with the same masks, the same teacher, KL(teacher || student) at temperature {temperature:g} over attended
positions; losses of the runs themselves, which have different weights and temperatures, are not compared. Less is
better of MLM loss, KL and 1 - cos. In brackets: lowest to highest of the seeds. Differences are taken between students
of the same seed, which read the same text in the same order, and then averaged. `*`: the mean difference is larger than
the range of the seeds' differences, as it is by noise alone in {chances}
of cases with {seeds} seeds."""


def markdown(plan: Plan, settings: Settings, figures: Figures, command: str) -> str:
    """A section."""
    finished, held = len(plan.cells) - len(figures.missing), settings.heldout
    lines = [
        f"## {time.strftime('%Y-%m-%d %H:%M')}: ablation {plan.path.stem}",
        "",
        f"    {command}",
        "",
        f"{len(plan.names)} cells times {len(plan.seeds)} seeds ({', '.join(map(str, plan.seeds))}), {finished} of "
        f"{len(plan.cells)} finished. Held-out: {held['sequences']:,} sequences of at most {held['max_length']} tokens of "
        f"{plan.heldout.data}.",
        *_section("Held-out text", held_out_table(plan, settings, figures)),
        *_section(f"Differences from {plan.baseline}", difference_table(plan, settings, figures)),
    ]
    if plan.tasks:
        lines += _section("Fine-tuned", task_table(plan, figures))
    if figures.missing:
        lines += [
            "",
            "Not finished, and therefore missing above, or there with fewer seeds:",
            "",
            *_not_finished(figures),
        ]
    lines += ["", *orders(plan, settings, figures), _notes(settings)]
    lines += _task_notes(plan, figures)
    return "\n".join(lines) + "\n"


def held_out_table(plan: Plan, settings: Settings, figures: Figures) -> list[str]:
    rows = [
        [
            name,
            _what_differs(plan, settings, name),
            _seeds(figures, plan, name, HELD_OUT[0]),
            *(_value(figures.spread(name, column), column) for column in HELD_OUT),
        ]
        for name in plan.names
    ]
    return table(["cell", "what differs", "seeds", *(column.title for column in HELD_OUT)], rows)


def difference_table(plan: Plan, settings: Settings, figures: Figures) -> list[str]:
    """Of the held-out figures and of the tasks' mean, with the published figures beside."""
    columns = (*HELD_OUT, *task_columns(plan)[-1:])
    published = published_points(plan, settings)
    header = ["cell", "pairs", *(column.title for column in columns)]
    rows = []
    for name in plan.names:
        if name == plan.baseline:
            continue
        spreads = [figures.difference(name, plan.baseline, column) for column in columns]
        pairs = max((spread.seeds for spread in spreads if spread), default=0)
        row = [name, f"{pairs} of {len(plan.seeds)}"]
        row += [_value(spread, column, sign="+") for spread, column in zip(spreads, columns, strict=True)]
        rows.append(row + ([f"{published[name]:+.2f}" if name in published else ""] if published else []))
    return table(header + ([f"GLUE points, {SOURCE}"] if published else []), rows)


def task_table(plan: Plan, figures: Figures) -> list[str]:
    columns = task_columns(plan)
    rows = [
        [
            name,
            _seeds(figures, plan, name, columns[-1]),
            *(_value(figures.spread(name, column), column) for column in columns),
        ]
        for name in plan.names
    ]
    return table(["cell", "seeds", *(column.title for column in columns)], rows)


def published_points(plan: Plan, settings: Settings) -> dict[str, float]:
    """By cell, for those that are cells of the published table as well."""
    base, found = settings.cells[plan.baseline].flags, {}
    weights = min(base[f"weight_{name}"] for name in ("distillation", "mlm", "cosine"))
    if weights <= 0 or (base["objective"], base["student_init"]) != ("distil", "teacher"):
        return {}
    for name, wanted in settings.cells.items():
        items = tuple(differences(wanted.flags, base).items())
        if len(items) == 1 and isinstance(items[0][1], str | float) and items[0] in PUBLISHED:
            found[name] = PUBLISHED[items[0]]
    return found


def orders(plan: Plan, settings: Settings, figures: Figures) -> Iterator[str]:
    """Whether what costs most there costs most here; between cells whose spreads overlap an order means little."""
    published = published_points(plan, settings)
    for column in (HELD_OUT[1], *task_columns(plan)[-1:]):
        spreads = {name: figures.difference(name, plan.baseline, column) for name in published}
        here = {name: spread.mean for name, spread in spreads.items() if spread and not math.isnan(spread.mean)}
        if len(here) > 1:
            ours, theirs = (sorted(here, key=source.__getitem__) for source in (here, published))
            verdict = "the same order" if ours == theirs else "another order"
            yield f"What costs most, first. {SOURCE}, by GLUE: {', '.join(theirs)}."
            yield f"Here, by {column.title.rstrip(' %')}: {', '.join(ours)}; {verdict}."
            yield ""


def as_json(plan: Plan, settings: Settings, figures: Figures, command: str) -> str:
    """The same figures, not rounded and not in per cent."""
    published, columns = published_points(plan, settings), (*HELD_OUT, *task_columns(plan))
    cells = {}
    for name in plan.names:
        pairs = {column.key: figures.difference(name, plan.baseline, column) for column in columns}
        cells[name] = {
            "differs": differences(settings.cells[name].flags, settings.cells[plan.baseline].flags),
            "states": {cell.seed: str(found) for cell, found in figures.statuses.items() if cell.name == name},
            "figures": figures.values[name],
            "differences": {
                key: asdict(spread) | {"stands_out": spread.stands_out} for key, spread in pairs.items() if spread
            },
            "published_glue_points": published.get(name),
        }
    content = {
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "config": str(plan.path),
        "baseline": plan.baseline,
        "seeds": plan.seeds,
        "heldout": {**settings.heldout, "data": plan.heldout.data},
        "tasks": plan.tasks,
        "cells": cells,
    }
    return json.dumps(_finite(content), indent=2) + "\n"


def _task_notes(plan: Plan, figures: Figures) -> Iterator[str]:
    if not plan.tasks:
        return
    yield (
        "Tasks: the headline metric in per cent, the median over fine-tuning's own seeds. The mean counts each task as\n"
        "GLUE does, and is there only with all of them."
    )
    if {TASKS[task] for task in plan.tasks} != set(GLUE):
        yield "These are not the nine tasks of GLUE, whose mean the published figures are of."
    if figures.subsets:
        yield f"On a part of the examples: {', '.join(TASKS[task].title for task in figures.subsets)}."


def _not_finished(figures: Figures) -> list[str]:
    seeds: dict[tuple[str, str], list[str]] = {}
    for cell, found in figures.missing.items():
        seeds.setdefault((cell.name, str(found)), []).append(str(cell.seed))
    return [f"- {name}, seed {', '.join(numbers)}: {found}" for (name, found), numbers in seeds.items()]


def _what_differs(plan: Plan, settings: Settings, name: str) -> str:
    if name == plan.baseline:
        return "the baseline"
    flags = differences(settings.cells[name].flags, settings.cells[plan.baseline].flags)
    if "ds_config" in flags:
        flags["ds_config"] = plan.first_of_each[name].flags["ds_config"]
    return ", ".join(f"{flag} {f'{value:g}' if isinstance(value, float) else value}" for flag, value in flags.items())


def _seeds(figures: Figures, plan: Plan, name: str, column: Column) -> str:
    spread = figures.spread(name, column)
    return f"{spread.seeds if spread else 0} of {len(plan.seeds)}"


def _value(spread: Spread | None, column: Column, sign: str = "") -> str:
    """Mean, and where there are several seeds the lowest and highest; a difference also says whether it stands out."""
    if spread is None:
        return MISSING
    if math.isnan(spread.mean):
        return "undefined"
    form = f"{{:{sign}.{column.digits}f}}"
    values = (round(column.scale * v, column.digits) + 0.0 for v in (spread.mean, spread.lowest, spread.highest))
    mean, lowest, highest = map(form.format, values)  # + 0.0: no -0.0
    if spread.seeds == 1:
        return mean
    return f"{mean} ({lowest} to {highest}){' *' if sign and spread.stands_out else ''}"


def _notes(settings: Settings) -> str:
    chances, seeds = [f"{share:.1%}" for share in BY_CHANCE.values()], list(map(str, BY_CHANCE))
    joined = (f"{', '.join(words[:-1])} and {words[-1]}" for words in (chances, seeds))
    return NOTES.format(
        temperature=settings.heldout["temperature"], **dict(zip(("chances", "seeds"), joined, strict=True))
    )


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"### {title}", "", *lines]


def _finite(value: Any) -> Any:
    """JSON has neither nan nor infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
