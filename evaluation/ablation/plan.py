"""The file of an ablation, read and found to be well-formed.

    {
      "output": "runs/ablation",                         a folder: OUTPUT/CELL/seed-S for every cell and seed
      "launcher": ["deepspeed", "--num_gpus", "8"],      what train.py is started with; left out: this Python, one process
      "seeds": [0, 1, 2],                                of train.py
      "train": {"ds_config": "...", "data": ["..."]},    flags of train.py that all cells share
      "cells": {"triple_loss": {}, "temperature_4": {"temperature": 4}},   flags in which each differs
      "baseline": "triple_loss",                         the cell that differences are taken from
      "heldout": {"data": "corpus/heldout", "sequences": 1024},   left out: the eval_data of "train", 1,024 sequences
      "finetune": {"task": ["rte", "sst2"], "data": "glue", "seeds": 5}    flags of finetune.py; left out: no fine-tuning
    }

Nothing here looks at a corpus, a model or train.py's flags: settings.py does.
"""

import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.tasks import task_named

Value = str | int | float | bool | list[str | int | float]
Flags = Mapping[str, Value]
"""Of a command, by name without dashes."""

KEYS = ("output", "launcher", "seeds", "train", "cells", "baseline", "heldout", "finetune")
REQUIRED = ("output", "seeds", "train", "cells", "baseline")
OURS = {
    "output": "every cell and seed has its own folder under the file's output",
    "seed": "the file's seeds are what cells are run with",
    "resume": "runs are always resumed",
    "stop_after": "a signal stops the ablation, and the running cell is saved",
    "plan": "it trains nothing",
    "local_rank": "launchers pass it",
    "help": "it trains nothing",
}
"""Flags of train.py that are set here, and why."""
OURS_OF_FINETUNE = {
    "model": "it is each cell's student",
    "output": "it lies beside each cell's student",
    "local_rank": OURS["local_rank"],
    "help": OURS["help"],
}
COMMON = {"teacher": "all students are compared with one teacher", "eval_data": "all are scored on one text"}
"""Flags that a cell may not have of its own."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class HeldOut(NamedTuple):
    """The text that all students are scored on."""

    data: str
    """Prefix of a prepared corpus."""
    sequences: int
    """Spread evenly over the text."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One student to train."""

    number: int
    name: str
    seed: int
    folder: Path
    flags: Flags = field(compare=False)
    """Of train.py, but for --seed, --output and --resume."""

    @property
    def title(self) -> str:
        return f"{self.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the file says."""

    path: Path
    output: Path
    launcher: tuple[str, ...]
    """Before train.py in the command line; empty for this Python."""
    seeds: tuple[int, ...]
    baseline: str
    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    """In the order of their numbers: all cells of the first seed, then all of the second."""
    heldout: HeldOut
    finetune: Flags
    """Empty for no fine-tuning."""

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Of fine-tuning."""
        named = self.finetune.get("task", [])
        return tuple(map(str, named)) if isinstance(named, list) else (str(named),)

    @property
    def first_of_each(self) -> dict[str, Cell]:
        """By name, the cell of the first seed: what does not depend on the seed is looked at there."""
        return {cell.name: cell for cell in self.cells[: len(self.names)]}

    def numbered(self, number: int) -> Cell:
        """Errors: ValueError."""
        if not 0 <= number < self.num_cells:
            raise ValueError(
                f"--cell {number}: {self.path} has {len(self.names)} cells times {len(self.seeds)} seeds, "
                f"numbered 0 to {self.num_cells - 1}"
            )
        return self.cells[number]


def read_plan(path: Path, launcher: str = "") -> Plan:
    """Errors: FileNotFoundError, or ValueError naming the file and the key."""
    raw = _read(path)
    _check_keys(path, raw, KEYS, REQUIRED)
    if not isinstance(raw["output"], str) or not raw["output"]:
        raise ValueError(f'{path}: output is {raw["output"]!r}, expected a folder, such as "runs/ablation"')
    train = _flags(path, "train", raw["train"], OURS)
    differences = _cells(path, raw["cells"])
    names = tuple(differences)
    if raw["baseline"] not in names:
        raise ValueError(f"{path}: baseline is {raw['baseline']!r}, expected one of the cells: {', '.join(names)}")
    seeds, output = _seeds(path, raw["seeds"]), Path(raw["output"])
    numbered = enumerate((seed, name) for seed in seeds for name in names)
    return Plan(
        path=path,
        output=output,
        launcher=_launcher(path, raw.get("launcher", []), launcher),
        seeds=seeds,
        baseline=raw["baseline"],
        names=names,
        cells=tuple(
            Cell(number=n, name=name, seed=seed, folder=output / name / f"seed-{seed}", flags=train | differences[name])
            for n, (seed, name) in numbered
        ),
        heldout=_heldout(path, raw.get("heldout", {}), train),
        finetune=_finetune(path, raw["finetune"]) if "finetune" in raw else {},
    )


def arguments(flags: Flags) -> list[str]:
    """The command line for these flags."""
    words = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else (value,))]
    return words


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no ablation at --config {path}. evaluation/ablation/paper.json is one to start from")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--config {path} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"--config {path} holds {type(raw).__name__}, expected a JSON object")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a repeated key would hide one of its values."""
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise ValueError(f"{key!r} occurs twice in one object: give each its own name")
        record[key] = value
    return record


def _check_keys(path: Path, raw: Mapping[str, Any], known: Sequence[str], required: Sequence[str]) -> None:
    for key in raw:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"{path}: key {key!r} is not known: {hint}")
    if missing := [key for key in required if key not in raw]:
        raise ValueError(
            f"{path}: missing {', '.join(map(repr, missing))} (evaluation/ablation/paper.json is a complete example)"
        )


def _cells(path: Path, raw: Any) -> dict[str, dict[str, Value]]:
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f'{path}: cells is {raw!r}, expected an object such as {{"triple_loss": {{}}}}')
    for name in raw:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{path}: the cell {name!r} has no name for a folder. Give letters, digits, dots, underscores and "
                "dashes, a letter or digit first"
            )
    return {name: _flags(path, f"cells.{name}", flags, OURS | COMMON) for name, flags in raw.items()}


def _flags(path: Path, where: str, raw: Any, refused: Mapping[str, str]) -> dict[str, Value]:
    """Flags by the names that they have in Python."""
    if not isinstance(raw, dict):
        raise ValueError(f'{path}: {where} is {raw!r}, expected an object of flags such as {{"temperature": 4}}')
    flags: dict[str, Value] = {}
    for given, value in raw.items():
        name = given.replace("-", "_")
        if name in refused:
            raise ValueError(f"{path}: {where} has {given!r}, but {refused[name]}. Leave it out")
        if not re.fullmatch(r"[a-z]\w*", name) or name in flags:
            raise ValueError(
                f"{path}: {where} has {given!r}: give each flag once, by its name without dashes before it"
            )
        parts = value if isinstance(value, list) else [value]
        if not all(type(part) in (str, int, float) for part in parts) and type(value) is not bool:
            raise ValueError(
                f"{path}: {where}.{given} is {json.dumps(value)}, expected text, a number, true, false, or a list"
            )
        flags[name] = value
    return flags


def _seeds(path: Path, raw: Any) -> tuple[int, ...]:
    if not isinstance(raw, list) or not raw or not all(type(seed) is int and seed >= 0 for seed in raw):
        raise ValueError(f"{path}: seeds is {raw!r}, expected a list of whole numbers such as [0, 1, 2]")
    if len(set(raw)) < len(raw):
        raise ValueError(f"{path}: seeds is {raw!r}: the same seed gives the same student. Give each once")
    return tuple(raw)


def _launcher(path: Path, raw: Any, given: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(word, str) and word for word in raw):
        raise ValueError(f'{path}: launcher is {raw!r}, expected a list such as ["deepspeed", "--num_gpus", "8"]')
    try:
        words = tuple(shlex.split(given))
    except ValueError as error:
        raise ValueError(f"--launcher {given}: {error}") from None
    return words or tuple(raw)


def _heldout(path: Path, raw: Any, train: Flags) -> HeldOut:
    if not isinstance(raw, dict):
        raise ValueError(f'{path}: heldout is {raw!r}, expected an object such as {{"data": "corpus/heldout"}}')
    _check_keys(path, raw, HeldOut._fields, ())
    data, sequences = raw.get("data", train.get("eval_data")), raw.get("sequences", 1024)
    if not isinstance(data, str) or not data:
        raise ValueError(
            f"{path}: no held-out text to score the students on. Give the prefix of a prepared corpus as eval_data in "
            'train, or as "heldout": {"data": "corpus/heldout"}'
        )
    if type(sequences) is not int or sequences < 1:
        raise ValueError(f"{path}: heldout.sequences is {sequences!r}, at least 1 is needed")
    return HeldOut(data, sequences)


def _finetune(path: Path, raw: Any) -> Flags:
    flags = _flags(path, "finetune", raw, OURS_OF_FINETUNE)
    tasks = flags.get("task", [])
    tasks = tasks if isinstance(tasks, list) else [tasks]
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f'{path}: finetune.task is {tasks!r}, expected a list of tasks such as ["rte", "sst2"]')
    for task in tasks:
        try:
            task_named(str(task))
        except ValueError as error:
            raise ValueError(f"{path}: finetune.task: {error}") from None
    return flags
