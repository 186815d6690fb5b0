"""Ablations for tests: their files, and cells as they are when they are finished."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.ablation.plan import Cell, Plan, read_plan
from evaluation.ablation.settings import Settings
from evaluation.results import write_json
from tests.conftest import Toy
from tests.launch import ds_config

CELLS: dict[str, dict[str, Any]] = {
    "triple_loss": {},
    "without_cosine": {"weight_cosine": 0},
    "random": {"student_init": "random"},
}


def content(toy: Toy, folder: Path, **changes: Any) -> dict[str, Any]:
    """Of a file that is right; None removes a key."""
    whole = {
        "output": str(folder / "out"),
        "seeds": [0, 1],
        "baseline": "triple_loss",
        "train": {
            "ds_config": str(ds_config(folder / "ds.json")),
            "data": [str(toy.train)],
            "teacher": str(toy.teacher),
            "max_length": 40,
            "max_updates": 6,
            "check_teacher": False,
        },
        "cells": CELLS,
        "heldout": {"data": str(toy.heldout), "sequences": 24},
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def write(toy: Toy, folder: Path, **changes: Any) -> Path:
    path = folder / "ablation.json"
    path.write_text(json.dumps(content(toy, folder, **changes)))
    return path


def plan_of(toy: Toy, folder: Path, **changes: Any) -> Plan:
    return read_plan(write(toy, folder, **changes))


def finish_training(cell: Cell, settings: Settings, student: Path) -> None:
    """As train.py leaves it, with another model's folder for a student."""
    shutil.copytree(student, cell.folder / "run" / "student")
    write_json(settings.cells[cell.name].record, cell.folder / "cell.json")


def finish(cell: Cell, settings: Settings, figures: Mapping[str, float], student: Path) -> None:
    finish_training(cell, settings, student)
    write_json({"settings": settings.heldout, "figures": figures}, cell.folder / "heldout.json")
