"""What an ablation has made: the folder of a cell and seed, what is in it, and who works on it.

OUTPUT/CELL/seed-S/cell.json       what decides the student, written before its training starts
                   run/            train.py's run folder, student/ in it
                   heldout.json    figures of the student, and how they were taken
                   finetune.json   flags of finetune.py
                   finetune/TASK/result.json
                   output.txt      what all of these commands printed
                   failed.json     how the last of them failed; gone when the cell is started again
                   lock            held by whoever works on the cell
"""

import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from evaluation.ablation.plan import Cell, Plan
from evaluation.ablation.settings import Settings
from evaluation.results import TaskResult, read_result

PATIENCE = 15.0
"""Seconds for a process that was just killed, and what it had started, to let go of a cell."""


class State(Enum):
    """How far a cell is."""

    TO_DO = "to do"
    BEGUN = "begun"
    RUNNING = "running"
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class Status:
    """And what there is to say of it."""

    state: State
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state.value}{self.detail and f' ({self.detail})'}"


class Busy(Exception):  # noqa: N818
    """Another process works on the cell; the message says which."""


def student_of(cell: Cell) -> Path:
    return cell.folder / "run" / "student"


def is_trained(cell: Cell) -> bool:
    """train.py renames the folder when it is complete."""
    return (student_of(cell) / "config.json").is_file()


def read_heldout(cell: Cell, settings: Settings) -> dict[str, float] | None:
    """The student's figures, or None where there are none that were taken like this."""
    content = read_json_file(cell.folder / "heldout.json")
    if content is None or _first_difference(content.get("settings", {}), settings.heldout):
        return None
    return {name: math.nan if value is None else float(value) for name, value in content["figures"].items()}


def read_tasks(cell: Cell, plan: Plan) -> dict[str, TaskResult]:
    """Of fine-tuning that was finished with these flags; after other flags finetune.py goes on, or says why it cannot.

    Errors: ValueError for a file that is none of finetune.py's.
    """
    if not plan.finetune or read_json_file(cell.folder / "finetune.json") != plan.finetune:
        return {}
    return {task: read_result(cell.folder / "finetune" / task) for task in plan.tasks}


def status(cell: Cell, plan: Plan, settings: Settings) -> Status:
    if is_locked(cell.folder):
        return Status(State.RUNNING, holder(cell.folder))
    is_scored, is_tuned = read_heldout(cell, settings) is not None, len(read_tasks(cell, plan)) == len(plan.tasks)
    if is_trained(cell) and is_scored and is_tuned:
        return Status(State.FINISHED)
    failure = read_json_file(cell.folder / "failed.json")
    if failure is not None:
        return Status(State.FAILED, f"{failure['stage']}: {failure['reason']}; see {failure['log']}")
    if not is_trained(cell):
        return Status(State.BEGUN, "training") if (cell.folder / "run").is_dir() else Status(State.TO_DO)
    return Status(State.BEGUN, "to be fine-tuned" if is_scored else "to be scored")


def conflict(cell: Cell, settings: Settings) -> str:
    """Why the cell's folder cannot be used for it; empty where it can."""
    record, wanted = read_json_file(cell.folder / "cell.json"), settings.cells[cell.name].record
    if record is None:
        if (cell.folder / "run").exists():
            return f"{cell.folder} holds a run that this command did not start. Move it away, or choose another output"
        return ""
    other = "Give the cell another name, choose another output, or move the folder away to train it again"
    for part, expected in wanted.items():
        if difference := _first_difference(record.get(part, {}), expected):
            return f"{cell.folder} was made with other {part}: {difference}. {other}"
    return ""


def _first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Of what is wanted; empty where there is none."""
    for name, value in wanted.items():
        if found.get(name) != value:
            return f"{name} was {_short(found.get(name))}, is {_short(value)}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


def read_json_file(path: Path) -> dict[str, Any] | None:
    """None where there is no such file. Errors: ValueError for one that is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and start again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds {type(content).__name__}). Delete it and start again")
    return content


# -- who works on a cell --


@contextmanager
def locked(cell: Cell) -> Iterator[int]:
    """The descriptor that holds the lock: a child that inherits it holds it as well.

    Errors: Busy. On a file system without locks train.py's own, which also has a heartbeat, is the only one.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cell.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _flock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(holder(cell.folder))
            time.sleep(0.2)
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", "")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(mine).encode(), 0)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor)
    finally:
        os.close(descriptor)


def holder(folder: Path) -> str:
    """Who wrote the lock."""
    try:
        found = json.loads((folder / "lock").read_text(encoding="utf-8"))
        job = f", SLURM job {found['job']}" if found["job"] else ""
        return f"process {found['pid']} on {found['host']}{job}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here
    return True
