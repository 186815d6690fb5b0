"""The losses and the held-out figures over tokens."""

import math
from collections.abc import Mapping, Sequence

from evaluation.report.charts import Curve, Fan, curves, short
from evaluation.report.document import Block, Chart, Charts, Note, Prose, Section, Table
from evaluation.report.outlook import forecast_retention
from evaluation.report.runs import Group, Run, is_number

COMPONENTS = ("distillation", "mlm", "cosine")
_NAMES = {"distillation": "distillation (T² KL)", "mlm": "masked LM", "cosine": "cosine"}
_ROWS = 10  # of a table of a curve
_POINTS = 300  # of a curve
HELD_OUT = (
    ("mlm_loss", "Held-out masked-LM loss, nats a masked token", False),
    ("mlm_accuracy", "Held-out accuracy, % of masked tokens", True),
    ("agreement", "Agreement with the teacher, % of masked tokens whose first word is the same", True),
)
Styles = Mapping[str, int]
"""Colour and dashes by name of a run, the same all over the report."""


def loss_section(groups: Sequence[Group], styles: Styles) -> Section:
    """What the optimizer saw of each run, and every component of runs that compare beside the others."""
    blocks: list[Block] = []
    for group in groups:
        trained = [run for run in group.runs if run.lines]
        blocks += [Note(f"{run.name} has no line of metrics yet.") for run in group.runs if not run.lines]
        if not trained:
            continue
        weighted = [_weighted_chart(run, f"loss{styles[run.name]}") for run in trained]
        names = [name for name in COMPONENTS if any(_column(run, f"loss_{name}") for run in trained)]
        parts = [_component_chart(name, trained, styles) for name in names if trained[0].is_distillation]
        if len(groups) > 1:
            blocks.append(Prose(f"{group.title}."))
        blocks.append(Charts([*weighted, *parts]))
    return Section("Losses over tokens", blocks, begins_page=True)


def _weighted_chart(run: Run, name: str) -> Chart:
    """All that makes up the loss, and it."""
    lines = [_curve(run, "loss", "loss", 3)]
    weights = {part: run.flags.get(f"weight_{part}", 1.0) for part in COMPONENTS}
    for style, part in enumerate(COMPONENTS, start=4):
        if _column(run, f"loss_{part}_weighted"):
            lines.append(_curve(run, f"loss_{part}_weighted", f"{weights[part]:g} x {part}", style))
    title = f"{run.name}: loss and its weighted components" if len(lines) > 1 else f"{run.name}: masked-LM loss"
    columns = [key for key in _LOSS_COLUMNS if _column(run, key)]
    rows = [
        [f"{line['update']:,}", short(line["tokens"]), *(_figure(line.get(key)) for key in columns)]
        for line in thinned(run.lines, _ROWS)
    ]
    header = ["update", "tokens", *(_LOSS_COLUMNS[key] for key in columns)]
    return Chart(title, curves(name, lines, is_logarithmic=True), Table(header, rows))


_LOSS_COLUMNS = {"loss": "loss"} | {f"loss_{part}": part for part in COMPONENTS}
_LOSS_COLUMNS |= {f"loss_{part}_weighted": f"{part}, weighted" for part in COMPONENTS}


def _component_chart(part: str, runs: Sequence[Run], styles: Styles) -> Chart:
    lines = [_curve(run, f"loss_{part}", run.name, styles[run.name]) for run in runs]
    name = f"{part}{styles[runs[0].name]}"
    return Chart(f"Unweighted {_NAMES[part]} loss", curves(name, lines, is_logarithmic=True))


def _curve(run: Run, key: str, name: str, style: int) -> Curve:
    lines = thinned(run.lines, _POINTS)
    values = [float(line[key]) if is_number(line.get(key)) else math.nan for line in lines]
    return Curve(name=name, x=[line["tokens"] for line in lines], y=values, style=style)


def _column(run: Run, key: str) -> bool:
    return any(is_number(line.get(key)) for line in run.lines)


def held_out_section(groups: Sequence[Group], styles: Styles) -> Section:
    """The curves of runs that compare, with their teacher's level."""
    blocks: list[Block] = []
    for group in groups:
        known = [run for run in group.runs if run.evaluations]
        for run in group.runs:
            if not run.evaluations:
                why = "no evaluation yet" if run.flags["eval_data"] else "no held-out text (--eval_data)"
                blocks.append(Note(f"{run.name} has {why}."))
        if not known:
            continue
        if len(groups) > 1:
            blocks.append(Prose(f"{group.title}."))
        if any(_is_start_left_out(run) for run in known):
            blocks.append(Prose("Curves begin at the first evaluation after the start, which the tables have."))
        blocks.append(
            Charts(
                [c for key, title, is_share in HELD_OUT for c in _held_out_chart(group, key, title, is_share, styles)]
            )
        )
        blocks += [_held_out_table(run) for run in known]
    return Section("Held-out figures over tokens", blocks, begins_page=True)


def _held_out_chart(group: Group, key: str, title: str, is_share: bool, styles: Styles) -> list[Chart]:
    lines = []
    for run in group.runs:
        shown = run.evaluations[1:] if _is_start_left_out(run) else run.evaluations
        y = [evaluation.figures.get(key, math.nan) for evaluation in shown]
        if any(map(math.isfinite, y)):
            x = [evaluation.tokens for evaluation in shown]
            lines.append(
                Curve(
                    name=run.name,
                    x=x,
                    y=y,
                    style=styles[run.name],
                    has_markers=True,
                    fan=_fan(run) if key == "mlm_accuracy" else None,
                )
            )
    if not lines:
        return []
    level = ("teacher", group.teacher[key]) if key in group.teacher else None
    name = f"{key}{styles[lines[0].name]}"
    return [Chart(title, curves(name, lines, level=level, is_share=is_share))]


def _fan(run: Run) -> Fan | None:
    found = None if run.is_complete else forecast_retention(run)
    if found is None:
        return None
    teacher = run.teacher["mlm_accuracy"]
    return Fan(x=run.planned_tokens, low=found.low * teacher, middle=found.middle * teacher, high=found.high * teacher)


def _is_start_left_out(run: Run) -> bool:
    """What a random start predicts would leave no room for what follows."""
    return len(run.evaluations) > 2 and run.evaluations[0].update == 0


def _held_out_table(run: Run) -> Table:
    header = ("update", "tokens", "MLM loss", "accuracy", "retention", "agreement", "T² KL")
    rows = []
    for e in thinned(run.evaluations, _ROWS + 2):
        f = e.figures
        rows.append(
            [
                f"{e.update:,}",
                short(e.tokens),
                _figure(f.get("mlm_loss")),
                _share(f.get("mlm_accuracy")),
                _share(run.retention(e)),
                _share(f.get("agreement")),
                _figure(f.get("distillation")),
            ]
        )
    if run.teacher:
        rows.append(
            ["teacher", "", _figure(run.teacher.get("mlm_loss")), _share(run.teacher.get("mlm_accuracy")), *[""] * 3]
        )
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return Table([header[i] for i in used], [[row[i] for i in used] for row in rows], caption=run.name)


def thinned(items: Sequence, most: int) -> list:
    """Spread evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _figure(value: object) -> str:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return f"{value:.3f}" if abs(value) >= 1 else f"{value:.4f}"


def _share(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) and math.isfinite(value) else ""
