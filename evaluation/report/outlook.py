"""Where runs that have not reached their planned end will be there: the forecast of retention, beside the random start's."""

import math
from collections.abc import Mapping, Sequence

from evaluation.report.charts import Curve, Fan, curves
from evaluation.report.document import Block, Chart, Charts, Note, Prose, Section, Table
from evaluation.report.forecast import LEAST_POINTS, SHARE, Forecast, Schedule, accuracy_noise, forecast
from evaluation.report.runs import Group, Run

HOW = (
    "How: the accuracy of the evaluations after the warm-up is extrapolated, updates counted mostly by their learning rate, "
    "so that those at the end, where it falls to 0, count for little; curves of every bend are weighed by their fit. "
    f"The range should hold {SHARE:.0%} of ends. It knows nothing of what has not happened yet: a run that diverges, or "
    "text that comes to its second epoch."
)


def forecast_retention(run: Run) -> Forecast | None:
    """Of a distillation, at its planned end; None where too little is known yet."""
    teacher = run.teacher.get("mlm_accuracy", math.nan)
    if not run.is_distillation or not run.planned_updates or not run.lines or not teacher > 0:
        return None
    accuracies = [evaluation.figures.get("mlm_accuracy", math.nan) for evaluation in run.evaluations]
    last = run.lines[-1]
    # Not on record how many tokens are masked: as long as the training's, all held-out sequences together have about these.
    masked = run.flags["eval_sequences"] * last["tokens"] / last["sequences"] * run.flags["mask_probability"]
    finite = [value for value in accuracies if math.isfinite(value)]
    schedule = Schedule(num_updates=run.planned_updates, warmup_share=run.flags["warmup_share"])
    found = forecast(
        [evaluation.update for evaluation in run.evaluations],
        accuracies,
        schedule,
        accuracy_noise(finite[-1] if finite else 0.0, masked),
    )
    return found.scaled(1 / teacher) if found else None


def in_words(found: Forecast) -> str:
    return f"{found.middle:.1%} of the teacher's accuracy, between {found.low:.1%} and {found.high:.1%} in 4 of 5 cases"


def forecast_section(groups: Sequence[Group], styles: Mapping[str, int]) -> Section:
    """One chart a teacher; says why where there is none."""
    blocks: list[Block] = []
    is_any = False
    for group in groups:
        if not group.runs[0].is_distillation:
            continue
        unfinished = [run for run in group.runs if not run.is_complete]
        blocks += [Note(f"{run.name}: {_why_not(run)}.") for run in unfinished if forecast_retention(run) is None]
        if not any(forecast_retention(run) for run in unfinished):
            continue
        is_any = True
        blocks.append(Charts([_chart(group, styles)]))
        if not any(run.is_random_start for run in group.runs):
            blocks.append(Note("No random start among these runs to compare with."))
    if is_any:
        blocks.append(Prose(HOW))
    if not blocks:
        blocks.append(Note("Nothing to forecast: every distillation has reached its planned end."))
    return Section("Forecast of the planned end", blocks)


def _why_not(run: Run) -> str:
    if not run.flags["eval_data"]:
        return "no forecast without held-out text"
    if not run.planned_updates or not run.lines:
        return "too early for a forecast: no line of metrics yet"
    if not run.teacher:
        return "no forecast, the teacher's held-out figures are not on record"
    warmup = run.flags["warmup_share"] * run.planned_updates
    points = sum(evaluation.update > warmup for evaluation in run.evaluations)
    return f"too early for a forecast: {points} of {LEAST_POINTS} evaluations after the warm-up"


def _chart(group: Group, styles: Mapping[str, int]) -> Chart:
    lines, rows = [], []
    for run in group.runs:
        points = [(e.tokens, run.retention(e)) for e in run.evaluations if e.update or len(run.evaluations) < 3]
        found = None if run.is_complete else forecast_retention(run)
        fan = Fan(x=run.planned_tokens, low=found.low, middle=found.middle, high=found.high) if found else None
        x, y = [p[0] for p in points], [p[1] for p in points]
        lines.append(Curve(name=run.name, x=x, y=y, style=styles[run.name], has_markers=True, fan=fan))
        now = y[-1] if y else math.nan
        rows.append(
            [
                f"{run.name}{' (random start)' if run.is_random_start else ''}",
                f"{run.update:,} of {run.planned_updates:,}" if run.planned_updates else f"{run.update:,}",
                f"{now:.1%}" if math.isfinite(now) else "",
                f"{found.middle:.1%}" if found else ("reached" if run.is_complete else "too early"),
                f"{found.low:.1%} to {found.high:.1%}" if found else "",
                str(found.points) if found else "",
            ]
        )
    header = ("run", "updates", "retention now", "at the planned end", f"{SHARE:.0%} range", "evaluations used")
    name = f"forecast{styles[group.runs[0].name]}"
    svg = curves(name, lines, level=("teacher", 1.0), is_share=True)
    return Chart("Retention of the teacher's held-out accuracy, and its forecast", svg, Table(header, rows))
