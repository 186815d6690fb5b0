"""Where the table's results come from: results folders, or model folders, whose missing tasks finetune.py runs first."""

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import FILE, TaskResult, read_results
from evaluation.sections import named
from evaluation.table_config import TableConfig
from evaluation.task_data import read_split, source_of
from evaluation.tasks import GLUE, TASKS, Task

_SCRIPT = Path(__file__).resolve().parent.parent / "finetune.py"
_HUB = "hf:"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model of the table."""

    name: str
    folder: Path
    """As it was given."""
    is_model: bool
    """Whether the folder holds a model, not results."""
    results: Path
    """Where its results are, or will be."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What there is to compare."""

    sides: tuple[Side, ...]
    """The teacher first."""
    results: dict[str, list[TaskResult]]
    """By name."""
    no_data: tuple[str, ...]
    """Tasks that a model folder has no result of, and --data nothing for."""
    remarks: tuple[str, ...]
    """Results that may not be the model's."""


def gather(config: TableConfig) -> Gathered:
    """Read what is there, fine-tuning what is not. Errors: ValueError or OSError for input that does not fit."""
    sides = sides_of(config)
    for side in sides:
        _check_owner(side)  # before hours are spent on the others
    no_data = []
    for side in sides:
        if side.is_model and config.data:
            no_data += complete(side, config)
    results = {side.name: _read(side, config) for side in sides}
    remarks = [remark for side in sides for remark in _remarks(side, results[side.name])]
    tasks = tuple(task for task in TASKS if task in no_data)
    return Gathered(sides=sides, results=results, no_data=tasks, remarks=tuple(remarks))


def sides_of(config: TableConfig) -> tuple[Side, ...]:
    """The models that the flags name. Errors: ValueError for a name that is no folder's or is given twice."""
    sides: dict[str, Side] = {}
    for flag, given in [("teacher", config.teacher), *(("student", student) for student in config.student)]:
        name, source = named(given)
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"--{flag} {given}: there is no folder {source!r}. Give a results folder of finetune.py, or a model "
                "folder; a model of the hub has a results folder once finetune.py --model has run on it"
            )
        if name in ("", ".", "..") or "/" in name or os.sep in name:
            raise ValueError(f"--{flag} {given}: {name!r} is no name for a row. Give it one: NAME={source}")
        if name in sides:
            raise ValueError(f"--{flag} {given}: there is a {name!r} already. Give each its own name: NAME=FOLDER")
        is_model = (folder / "config.json").is_file()
        results = Path(config.output) / name if is_model else folder
        sides[name] = Side(name=name, folder=folder, is_model=is_model, results=results)
    return tuple(sides.values())


def complete(side: Side, config: TableConfig) -> list[str]:
    """Fine-tune the model on each task that it has no result of. Returns the tasks without data.

    Errors: ValueError where finetune.py fails or writes no result, or for data that is not as published.
    """
    no_data = []
    for name in config.tasks:
        if (side.results / name / FILE).is_file():
            continue
        if not has_data(TASKS[name], config.data, is_only_task=len(config.tasks) == 1):
            no_data.append(name)
            continue
        command = finetune_command(side, name, config.data, shlex.split(config.finetune))
        print(
            f"{side.name} has no result of {TASKS[name].title} yet: {shlex.join(command)}", file=sys.stderr, flush=True
        )
        code = subprocess.run(command, stdout=2, check=False).returncode  # 2: the table alone goes to standard output
        if code:
            raise ValueError(f"fine-tuning failed with exit code {code}: {shlex.join(command)}")
        if not (side.results / name / FILE).is_file():
            raise ValueError(f"fine-tuning left no {side.results / name / FILE}: {shlex.join(command)}")
    return no_data


def finetune_command(side: Side, task: str, data: str, flags: Sequence[str]) -> list[str]:
    """What fine-tunes the model on one task; from any working directory."""
    files = ["--model", str(side.folder), "--task", task, "--data", data, "--output", str(side.results)]
    return [sys.executable, os.path.relpath(_SCRIPT), *files, *flags]


@functools.cache
def has_data(task: Task, data: str, is_only_task: bool) -> bool:
    """Whether `data` has every split of the task: below glue/, imdb/ or squad/, or in a folder that is the task's own.

    Errors: ValueError for files that are there and not as published, before hours are spent on other tasks.
    """
    if data.startswith(_HUB):
        return True
    root, folder = Path(data).expanduser(), Path(source_of(task, data)).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"--data {data}: there is no such folder. Give the one with glue/, imdb/ and squad/, or {_HUB}"
        )
    if task in GLUE and not (folder / task.title).is_dir() and not (folder == root and is_only_task):
        return False  # GLUE's files have the same names in every folder: without the title it may be another task's
    try:
        for split in task.splits:
            read_split(task, split, str(folder))
    except FileNotFoundError:
        return False
    return True


def _read(side: Side, config: TableConfig) -> list[TaskResult]:
    found = list(read_results(side.results)) if side.results.is_dir() else []
    asked = [result for result in found if result.task in config.tasks]
    if asked:
        return asked
    place = f"{side.name}: {side.results} has no result of {', '.join(config.tasks)}"
    if found:
        raise ValueError(f"{place}. It has {', '.join(result.task for result in found)}: ask for those with --tasks")
    if not side.is_model:
        raise ValueError(f"{place}, and no config.json. Give a results folder of finetune.py, or a model folder")
    if config.data:
        raise ValueError(f"{place}, and {config.data} no data of them. Give --data with glue/, imdb/ or squad/ in it")
    raise ValueError(f"{place}. Give --data to fine-tune {side.folder} now")


def _check_owner(side: Side) -> None:
    """Errors: ValueError where the results of a model folder are another model's."""
    for result in read_results(side.results) if side.is_model else ():
        is_same = Path(result.model).expanduser().resolve() == side.folder.resolve()
        if not is_same and not result.model.startswith(f"{side.folder}, "):  # how its start was changed
            raise ValueError(
                f"{side.results / result.task / FILE} is of {result.model}, not of {side.folder}. Give another name, for "
                f"example {side.name}2={side.folder}, or another --output"
            )


def _remarks(side: Side, results: Sequence[TaskResult]) -> list[str]:
    found = []
    models: dict[str, list[str]] = {}
    for result in results:
        title = TASKS[result.task].title
        weights = result.settings.get("weights")
        models.setdefault(f"{result.model}, weights {weights}" if weights else result.model, []).append(title)
        if side.is_model and _written(side.folder) > (side.results / result.task / FILE).stat().st_mtime:
            found.append(f"{side.name}: the result of {title} is older than the weights in {side.folder}")
    if len(models) > 1:
        some = "; ".join(f"{model} ({', '.join(titles)})" for model, titles in models.items())
        found.append(f"{side.name}: its results are not of one model: {some}")
    return found


def _written(folder: Path) -> float:
    """When the newest of its weights was written."""
    return max((path.stat().st_mtime for pattern in _WEIGHTS for path in folder.glob(pattern)), default=0.0)
