"""The summary: a sentence for every distillation, and the key figures of all runs."""

import math
import statistics
from collections.abc import Callable, Sequence

from evaluation.report.charts import short
from evaluation.report.document import Block, Note, Prose, Section, Table
from evaluation.report.outlook import forecast_retention, in_words
from evaluation.report.runs import Group, Run, is_number

_RECENT = 5  # lines that tell how fast a run is now
_Fact = Callable[[Run], str]
"""A figure of a run, empty where it has none."""


def summary_section(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """One sentence a distillation, and the key figures."""
    students = [run for group in groups for run in group.runs if run.is_distillation]
    blocks: list[Block] = [Prose(_sentence(run)) for run in students[:3]]
    if len(students) > 3:
        blocks.append(Note(f"{len(students) - 3} more distillations are in the table."))
    if not students:
        blocks.append(Note("None of the runs is a distillation, so there is no retention to report."))
    rows = [[name, *(value(run) for run in runs)] for name, value in _FACTS]
    blocks.append(Table(["", *(run.name for run in runs)], [row for row in rows if any(row[1:])]))
    return Section("Summary", blocks)


def _sentence(run: Run) -> str:
    start = "a random start" if run.is_random_start else "its layers"
    text = f"{run.name}: a student of {run.flags['teacher']}, from {start}; {_how_far(run)}."
    if not run.evaluations:
        return f"{text} No held-out figures yet." if run.flags["eval_data"] else f"{text} There is no held-out text."
    last = run.evaluations[-1]
    own, teacher = last.figures.get("mlm_accuracy", math.nan), run.teacher.get("mlm_accuracy", math.nan)
    if not math.isfinite(teacher):
        return f"{text} It predicts {own:.1%} of the masked tokens; the teacher's figure is not on record."
    text += (
        f" It predicts {own:.1%} of the masked tokens of held-out text, its teacher {teacher:.1%}: "
        f"it retains {run.retention(last):.1%} of the teacher's accuracy."
    )
    expected = None if run.is_complete else forecast_retention(run)
    return f"{text} Forecast for the planned end: {in_words(expected)}." if expected else text


def _how_far(run: Run) -> str:
    planned = run.planned_updates
    of = f" of {planned:,} updates ({run.update / planned:.0%})" if planned else " updates"
    return f"{run.update:,}{of}, {short(run.tokens)} tokens, {run.state}"


def _held_out(name: str, template: str) -> _Fact:
    def fact(run: Run) -> str:
        value = run.evaluations[-1].figures.get(name, math.nan) if run.evaluations else math.nan
        if not math.isfinite(value):
            return ""
        teacher = run.teacher.get(name, math.nan)
        return template.format(value) + (f" (teacher {template.format(teacher)})" if math.isfinite(teacher) else "")

    return fact


def _retained(run: Run) -> str:
    value = run.retention(run.evaluations[-1]) if run.evaluations else math.nan
    return f"{value:.1%}" if math.isfinite(value) else ""


def _expected(run: Run) -> str:
    found = None if run.is_complete else forecast_retention(run)
    return f"{found.middle:.1%} ({found.low:.1%} to {found.high:.1%})" if found else ""


def _best(run: Run) -> str:
    known = [e for e in run.evaluations if math.isfinite(e.figures.get("mlm_loss", math.nan))]
    best = min(known, key=lambda e: e.figures["mlm_loss"], default=None)
    return f"{best.figures['mlm_loss']:.3f} at update {best.update:,}" if best else ""


def _speed(run: Run) -> str:
    rates = [line["tokens_per_second"] for line in run.lines if is_number(line.get("tokens_per_second"))]
    return f"{statistics.median(rates):,.0f}" if rates else ""


def _time_to_go(run: Run) -> str:
    """Of training at the speed of the last lines, without evaluations and saves."""
    rates = [line["tokens_per_second"] for line in run.lines[-_RECENT:] if is_number(line.get("tokens_per_second"))]
    left = run.planned_tokens - run.tokens
    if run.state != "going" or not rates or not left > 0:
        return ""
    minutes = left / statistics.median(rates) / 60
    return f"about {minutes:,.0f} minutes" if minutes < 120 else f"about {minutes / 60:,.0f} hours"


def _memory(run: Run) -> str:
    peaks = [line["peak_memory_bytes"] for line in run.lines if is_number(line.get("peak_memory_bytes"))]
    return f"{max(peaks) / 1e9:.2f} GB a rank" if peaks else ""


def _skipped(run: Run) -> str:
    count = run.lines[-1].get("skipped_updates") if run.lines else None
    return f"{count:,}" if is_number(count) else ""


_FACTS: tuple[tuple[str, _Fact], ...] = (
    (
        "start",
        lambda run: (
            ("random" if run.is_random_start else "teacher's layers") if run.is_distillation else "pre-training"
        ),
    ),
    ("state", lambda run: run.state),
    ("updates", lambda run: f"{run.update:,}" + (f" of {run.planned_updates:,}" if run.planned_updates else "")),
    ("tokens", lambda run: short(run.tokens)),
    ("held-out loss", _held_out("mlm_loss", "{:.3f}")),
    ("held-out accuracy", _held_out("mlm_accuracy", "{:.1%}")),
    ("retention", _retained),
    ("forecast of retention", _expected),
    ("lowest held-out loss", _best),
    ("tokens/s", _speed),
    ("to go", _time_to_go),
    ("peak memory", _memory),
    ("skipped updates", _skipped),
)
