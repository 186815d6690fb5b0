"""A run folder as it is found, also in the middle of a run: configuration, metrics, starts and ends, incidents.

What a run is writing at this moment may be half there: a last line without its end is left for the next report.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Fields = Mapping[str, Any]
_TEACHER = "eval_teacher_"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out figures at one moment of a run."""

    update: int
    tokens: float
    """Trained on until then."""
    figures: Mapping[str, float]
    """mlm_loss, mlm_accuracy, agreement and others; nan where a run has recorded none."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is on the disk of a run."""

    name: str
    folder: Path
    config: Fields
    """config.json."""
    lines: Sequence[Fields]
    """Of metrics.jsonl, those of training, in the order of their updates."""
    evaluated: Sequence[Fields]
    """Those of evaluation, likewise."""
    teacher: Mapping[str, float]
    """The teacher's held-out figures, named as those of an `Evaluation`; empty where none were recorded."""
    attempts: Sequence[Fields]
    """Lines of attempts.jsonl."""
    incidents: Sequence[Fields]
    seconds_silent: float
    """Since the run last wrote anything."""

    @property
    def flags(self) -> Fields:
        flags: Fields = self.config["flags"]
        return flags

    @property
    def is_distillation(self) -> bool:
        return bool(self.flags["objective"] == "distil")

    @property
    def is_random_start(self) -> bool:
        """A student that was not made of its teacher's layers, for comparison."""
        return self.is_distillation and bool(self.flags["student_init"] == "random")

    @property
    def has_student(self) -> bool:
        return (self.folder / "student" / "config.json").is_file()

    @property
    def update(self) -> int:
        """The last that is known of."""
        return max((int(line["update"]) for line in (*self.lines, *self.evaluated)), default=0)

    @property
    def tokens(self) -> float:
        return self.tokens_at(self.update)

    @cached_property
    def planned_updates(self) -> int | None:
        """Of the whole run; None where --epochs decides and no line has told yet how many sequences an epoch has."""
        if self.flags["max_updates"]:
            return int(self.flags["max_updates"])
        if not self.lines or not self.lines[-1].get("epoch"):
            return None
        last = self.lines[-1]
        sequences_per_update = last["sequences"] / last["update"]
        return int(self.flags["epochs"] * round(last["sequences"] / last["epoch"]) / sequences_per_update)

    @property
    def planned_tokens(self) -> float:
        """At the rate so far; nan before the first line."""
        if self.planned_updates is None or not self.lines:
            return math.nan
        return float(self.planned_updates * self.lines[-1]["tokens"] / self.lines[-1]["update"])

    @property
    def is_complete(self) -> bool:
        return self.planned_updates is not None and self.update >= self.planned_updates

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        return [
            Evaluation(
                update=int(line["update"]),
                tokens=self.tokens_at(line["update"]),
                figures={
                    name.removeprefix("eval_"): _number(value) for name, value in line.items() if name != "update"
                },
            )
            for line in self.evaluated
        ]

    def tokens_at(self, update: float) -> float:
        """Between two lines updates are taken to be alike; before the first line nothing is known but 0 at the start."""
        updates = [0.0, *(float(line["update"]) for line in self.lines)]
        tokens = [0.0, *(float(line["tokens"]) for line in self.lines)]
        return float(np.interp(update, updates, tokens))

    def retention(self, evaluation: Evaluation) -> float:
        """The student's held-out accuracy as a share of its teacher's; nan where one of them is missing."""
        own, teacher = evaluation.figures.get("mlm_accuracy", math.nan), self.teacher.get("mlm_accuracy", math.nan)
        return own / teacher if teacher else math.nan

    @property
    def state(self) -> str:
        """In words."""
        starts = [record for record in self.attempts if "committed" not in record]
        last = starts[-1] if starts else {}
        if last.get("end") == "FINISHED" or (not last and self.is_complete):
            return "finished"
        if "end" in last:
            code = "" if last.get("exit_code") is None else f", exit code {last['exit_code']}"
            return f"ended early ({last['end']}{code})"
        if self.seconds_silent <= float(self.flags.get("hang_timeout", 1800.0)):
            return "going"
        return f"silent for {self.seconds_silent / 3600:,.1f} hours, without an end on record"

    def find(self, name: str) -> str:
        """A path of the flags, which are relative to where the run was started: there, or else as it is."""
        output = Path(self.flags.get("output") or ".")
        folder = self.folder.resolve()
        if not output.is_absolute() and folder.parts[-len(output.parts) :] == output.parts:
            origin = Path(*folder.parts[: len(folder.parts) - len(output.parts)])
            found = Path(os.path.normpath(origin / name))
            if found.exists() or Path(f"{found}.json").exists():
                return str(found)
        return name


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Each under its folder's name, or under more of its path where two have the same. Errors: as `read_run`."""
    folders = list(folders)
    names = [folder.resolve().name for folder in folders]
    return [
        read_run(folder, name if names.count(name) == 1 else "/".join(folder.resolve().parts[-2:]))
        for folder, name in zip(folders, names, strict=True)
    ]


def read_run(folder: Path, name: str) -> Run:
    """Errors: ValueError where the folder holds no run."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no run folder: {path} cannot be read ({_reason(error)})") from None
    flags = config.get("flags") if isinstance(config, dict) else None
    needed = ("objective", "student_init", "teacher", "eval_data", "max_updates", "epochs", "warmup_share")
    if not isinstance(flags, dict) or any(flag not in flags for flag in needed):
        raise ValueError(f"{folder} is no run folder: {path} does not hold the flags of train.py")
    lines, evaluated, teacher = _read_metrics(folder / "metrics.jsonl")
    return Run(
        name=name,
        folder=folder,
        config=config,
        lines=lines,
        evaluated=evaluated,
        teacher=teacher,
        attempts=read_lines(folder / "attempts.jsonl"),
        incidents=[*_read_incidents(folder / "incidents")],
        seconds_silent=_seconds_silent(folder),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole objects, one a line; a line that a crash or a writer has left torn is passed over."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _read_metrics(path: Path) -> tuple[list[Fields], list[Fields], dict[str, float]]:
    """Lines of training, lines of evaluation, and the teacher's figures.

    A run that went back to a checkpoint makes updates again: a line takes the place of those from its update on.
    """
    kept: dict[str, dict[int, Fields]] = {"training": {}, "evaluation": {}}
    teacher: dict[str, float] = {}
    for line in read_lines(path):
        if not isinstance(line.get("update"), int):
            continue
        if any(name.startswith(_TEACHER) for name in line):
            teacher = {n.removeprefix(_TEACHER): _number(v) for n, v in line.items() if n.startswith(_TEACHER)}
            continue
        update, kind = line["update"], "training" if "loss" in line else "evaluation"
        for lines in kept.values():
            for later in [number for number in lines if number > update]:
                del lines[later]
        kept[kind][update] = line
    return [*kept["training"].values()], [*kept["evaluation"].values()], teacher


def _read_incidents(folder: Path) -> Iterable[Fields]:
    for path in sorted(folder.glob("update-*.json")):
        try:
            incident = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            incident = {"reason": f"{path.name} cannot be read"}
        yield {"file": path, **(incident if isinstance(incident, dict) else {})}


def _seconds_silent(folder: Path) -> float:
    written = [
        folder / "config.json",
        folder / "metrics.jsonl",
        folder / "log.txt",
        *(folder / "heartbeats").glob("*.json"),
    ]
    return max(0.0, time.time() - max(path.stat().st_mtime for path in written if path.exists()))


def _number(value: Any) -> float:
    """Of a field of metrics.jsonl, where null stands for nan."""
    return float(value) if isinstance(value, int | float) else math.nan


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"not JSON: {error}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs whose held-out figures may stand side by side: the same teacher, text and masks."""

    runs: Sequence[Run]

    @property
    def teacher(self) -> Mapping[str, float]:
        """Its held-out figures, of the first run that has recorded them."""
        return next((run.teacher for run in self.runs if run.teacher), {})

    @property
    def title(self) -> str:
        flags = self.runs[0].flags
        what = f"Students of {flags['teacher']}" if self.runs[0].is_distillation else "Pre-training"
        return f"{what}, held-out text {flags['eval_data']}" if flags["eval_data"] else f"{what}, no held-out text"


_COMPARABLE = ("eval_data", "eval_sequences", "max_length", "mask_probability", "mask_smoothing", "temperature")


def comparable(runs: Sequence[Run]) -> list[Group]:
    """In the order of their first runs, distillations first."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: not run.is_distillation):
        teacher = run.flags["teacher"] if run.is_distillation else None
        groups.setdefault((teacher, *map(run.flags.get, _COMPARABLE)), []).append(run)
    return [Group(runs=members) for members in groups.values()]
