"""What the students are worth: how much of their teacher they retain, and what they save."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.report.charts import Bar, BarGroup, bars
from evaluation.report.document import Block, Chart, Charts, Note, Section, Table
from evaluation.report.runs import Run
from evaluation.results import read_results
from evaluation.sections import named
from evaluation.table_figures import Retention, table_of
from evaluation.table_figures import Table as TaskTable
from evaluation.tasks import TASKS
from model.hub import WEIGHT_FILES, read_config

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
Styles = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a model takes, as far as it is known."""

    name: str
    parameters: int
    megabytes: float
    times: Mapping[str, tuple[float, str]]
    """By setting: its figure and unit, ms or texts/s."""


def read_tasks(given: Sequence[str]) -> TaskTable | None:
    """NAME=FOLDER of fine-tuning results, the reference first; None where none are given.

    Errors: ValueError or OSError where a folder has none.
    """
    results = {}
    for text in given:
        name, folder = named(text)
        results[name] = list(read_results(Path(folder)))
        if not results[name]:
            raise ValueError(
                f"--results {text}: no TASK/result.json in {folder}. Give the folder that finetune.py wrote into"
            )
    return table_of(dict(sorted(results.items(), key=lambda item: item[0] != "teacher"))) if results else None


def retention_section(runs: Sequence[Run], tasks: TaskTable | None, styles: Styles) -> Section:
    """Bars of shares of the teacher's figures, and the figures."""
    blocks: list[Block] = []
    students = [run for run in runs if held_out_retention(run) is not None]
    groups = []
    if students:
        groups.append(BarGroup(heading="held-out accuracy", bars=[_held_out_bar(run, styles) for run in students]))
    else:
        blocks.append(
            Note("Held-out accuracy is left out: no distillation has held-out figures of itself and its teacher.")
        )
    if tasks and tasks.students:
        groups += _task_groups(tasks, styles)
    else:
        blocks.append(
            Note("Tasks are left out: give the results of fine-tuning the teacher and a student with --results.")
        )
    if groups:
        chart = Chart("Share of the teacher's score that is retained", bars("retention", groups, level="teacher"))
        blocks.insert(0, Charts([chart]))
    if students:
        rows = [
            [
                run.name,
                _percent(_accuracy(run)),
                _percent(run.teacher["mlm_accuracy"]),
                _percent(held_out_retention(run)),
            ]
            for run in students
        ]
        blocks.append(Table(("student", "held-out accuracy", "its teacher's", "retention"), rows))
    if tasks and tasks.students:
        blocks += _task_blocks(tasks)
    return Section("Retention", blocks, begins_page=True)


def held_out_retention(run: Run) -> float | None:
    """Of the last evaluation; None where a figure is missing."""
    value = run.retention(run.evaluations[-1]) if run.evaluations and run.is_distillation else math.nan
    return value if math.isfinite(value) else None


def _accuracy(run: Run) -> float:
    return run.evaluations[-1].figures["mlm_accuracy"]


def _held_out_bar(run: Run, styles: Styles) -> Bar:
    value = held_out_retention(run)
    assert value is not None
    done = "" if run.is_complete else f" at update {run.update:,}"
    return Bar(name=f"{run.name}{done}", value=value, style=styles[run.name], label=_percent(value))


def _task_groups(tasks: TaskTable, styles: Styles) -> list[BarGroup]:
    groups = []
    for task in tasks.tasks:
        shares = [(name, tasks.retention[name][task].value) for name in tasks.students if task in tasks.retention[name]]
        shown = [
            Bar(name=name, value=share, style=_style(name, styles, tasks), label=_percent(share))
            for name, share in shares
            if math.isfinite(share)
        ]
        if shown:
            groups.append(BarGroup(heading=TASKS[task].title, bars=shown))
    return groups


def _style(name: str, styles: Styles, tasks: TaskTable) -> int:
    """That of the run of the same name, or the next free ones."""
    others = [model for model in tasks.models if model not in styles]
    return styles[name] if name in styles else len(styles) + others.index(name)


def _task_blocks(tasks: TaskTable) -> list[Block]:
    """A row for each task that anybody has, and one for the mean over GLUE's."""
    header = ["task", tasks.teacher, *(part for name in tasks.students for part in (name, "retention"))]
    rows = []
    for task in tasks.tasks:
        found = [tasks.scores[name].get(task) for name in tasks.models]
        if any(found):
            mark = "*" if any(score and score.is_subset for score in found) else ""
            cells = [_points(score.value) if score else "no result" for score in found]
            shares = [tasks.retention[name].get(task) for name in tasks.students]
            rows.append([f"{TASKS[task].title}{mark}", cells[0], *_interleaved(cells[1:], shares)])
    if tasks.macro:
        cells = [_points(tasks.macro.scores.get(name, math.nan)) for name in tasks.models]
        shares = [tasks.macro.retention.get(name) for name in tasks.students]
        rows.append([tasks.macro.title, cells[0], *_interleaved(cells[1:], shares)])
    caption = (
        "Each task as GLUE counts it: the mean of its metrics, medians over seeds, the best cell of the grid on dev"
    )
    blocks: list[Block] = [Table(header, rows, caption=caption)]
    if any("*" in row[0] for row in rows):
        blocks.append(Note("* trained or evaluated on a part of the data."))
    for name in tasks.students:
        for task, share in tasks.retention[name].items():
            if said := "; ".join(part for part in (share.why, *share.remarks) if part):
                blocks.append(Note(f"{name}, {TASKS[task].title}: {said}."))
    return blocks


def _interleaved(scores: Sequence[str], shares: Sequence[Retention | None]) -> list[str]:
    pairs = zip(scores, shares, strict=True)
    return [cell for score, share in pairs for cell in (score, _percent(share.value) if share else "")]


def read_speed(path: str) -> list[Weight]:
    """What `evaluation.speed --json` wrote, the reference first. Errors: ValueError where it is none of that."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        models = [_weight(name, model, content["settings"]) for name, model in content["models"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--speed {path} is no file of evaluation.speed --json ({error!r})") from None
    return sorted(models, key=lambda model: model.name != "teacher")


def _weight(name: str, model: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> Weight:
    times = {}
    for way in settings:
        threads = f", {way['threads']} thread{'s' if way['threads'] > 1 else ''}" if way["device"] == "cpu" else ""
        device = "" if way["device"] == "cpu" else "GPU "
        size = "" if way["batch_size"] == 1 else f", batches of {way['batch_size']}"
        times[f"{device}{way['precision']}{threads}{size}"] = (float(way["models"][name]["median"]), str(way["unit"]))
    return Weight(name=name, parameters=int(model["parameters"]), megabytes=model["weights_bytes"] / 1e6, times=times)


def weigh_folders(runs: Sequence[Run]) -> list[Weight]:
    """Teacher and students as they lie on the disk, where they do: without speed. One teacher, that of the first run."""
    students = [run for run in runs if run.is_distillation and run.has_student]
    if not students:
        return []
    teacher = students[0].flags["teacher"]
    folders = {"teacher": Path(students[0].find(teacher))}
    folders |= {run.name: run.folder / "student" for run in students if run.flags["teacher"] == teacher}
    found = []
    for name, folder in folders.items():
        if any((folder / file).is_file() for file in WEIGHT_FILES):
            size = sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern))
            parameters = read_config(folder)[0].num_parameters
            found.append(Weight(name=name, parameters=parameters, megabytes=size / 1e6, times={}))
    return found if found and found[0].name == "teacher" else []


def size_section(
    runs: Sequence[Run], tasks: TaskTable | None, weights: Sequence[Weight], is_timed: bool, styles: Styles
) -> Section:
    """Every student beside its teacher: parameters, time and quality as shares of the teacher's."""
    blocks: list[Block] = []
    if not is_timed:
        blocks.append(
            Note("Speed is left out: measure it with python -m evaluation.speed --json FILE and give --speed FILE.")
        )
    if len(weights) < 2:
        blocks.append(Note("Sizes are left out: the folders of a student and its teacher are not both here yet."))
        return Section("Size, speed and quality", blocks)
    reference, *others = weights
    groups = [BarGroup(heading=model.name, bars=_model_bars(model, reference, runs, tasks)) for model in others]
    chart = Chart(f"Shares of what {reference.name} has", bars("size", groups, level=reference.name))
    header = ["", *(model.name for model in weights)]
    rows = [
        ["parameters", *(f"{m.parameters / 1e6:.1f} M ({m.parameters / reference.parameters:.0%})" for m in weights)],
        ["weights", *(f"{m.megabytes:,.1f} MB" for m in weights)],
    ]
    rows += [[setting, *(_time(m, setting, reference) for m in weights)] for setting in reference.times]
    return Section("Size, speed and quality", [Charts([chart]), Table(header, rows), *blocks])


def _model_bars(model: Weight, reference: Weight, runs: Sequence[Run], tasks: TaskTable | None) -> list[Bar]:
    """One style for each kind of figure: less is better for the first two, more for the last."""
    shares = [("parameters", model.parameters / reference.parameters, 0)]
    for setting, (own, unit) in model.times.items():
        if unit == "ms":
            shares.append((f"time of a text, {setting}", own / reference.times[setting][0], 1))
    run = next((run for run in runs if run.name == model.name), None)
    value = held_out_retention(run) if run else None
    if value is not None:
        shares.append(("held-out accuracy", value, 2))
    mean = tasks.macro.retention.get(model.name) if tasks and tasks.macro else None
    if mean is not None and math.isfinite(mean.value):
        shares.append(("mean of GLUE's tasks", mean.value, 2))
    return [Bar(name=name, value=share, style=style, label=_percent(share)) for name, share, style in shares]


def _time(model: Weight, setting: str, reference: Weight) -> str:
    own, unit = model.times[setting]
    base = reference.times[setting][0]
    faster = base / own if unit == "ms" else own / base
    return f"{own:.4g} {unit} ({faster:.2f}x)"


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None and math.isfinite(value) else "undefined"


def _points(score: float) -> str:
    return f"{100 * score:.1f}" if math.isfinite(score) else "undefined"
