"""OUTPUT/TASK and what it remembers, so that a command may be killed at any moment and given again. Rank 0 writes it alone.

settings.json   what all of its runs have in common
runs/NAME/      predictions, tensorboard, and last run.json, without which a run begins again
model/          of the best run, whole or not at all, with its run.json
lock            of the process that writes here
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from evaluation.results import Cell, TaskRun, read_run, write_json
from evaluation.tasks import Task, headline_score
from model.config import read_json

RUN = "run.json"
SETTINGS = "settings.json"


def check_settings(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Errors: ValueError where the folder has runs with others."""
    if not (folder / SETTINGS).exists():
        return
    before = read_json(folder / SETTINGS)
    for name in {**before, **wanted}:
        if before.get(name) != wanted.get(name):
            raise ValueError(
                f"{folder} has runs with {name} {before.get(name, 'not set')}, these would have it "
                f"{wanted.get(name, 'not set')}. Give another --output, or delete the folder"
            )


def run_folder(folder: Path, cell: Cell, seed: int) -> Path:
    name = f"batch-{cell.batch_size}_rate-{cell.learning_rate:g}_epochs-{cell.epochs}_seed-{seed}"
    return folder / "runs" / name


def finished(folder: Path, task: Task) -> TaskRun | None:
    """What a run's folder, or the model's, says of it; None where it has not ended, or what it wrote is damaged."""
    try:
        return read_run(task, read_json(folder / RUN))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{folder / RUN} is damaged ({error}): what it was written of does not count", flush=True)
        return None


def keep(folder: Path, task: Task, model: nn.Module, tokenizer: Any, run: TaskRun) -> None:
    """Its model instead of one that is not as good. Errors: OSError."""
    before, score = finished(folder / "model", task), headline_score(task, run.scores)
    if math.isnan(score) or (before is not None and score <= headline_score(task, before.scores)):
        return
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        model.float().save_pretrained(partial)
    except SafetensorError as error:
        raise OSError(f"{partial}: {error}") from None
    tokenizer.save_pretrained(partial)
    write_json(asdict(run), partial / RUN)
    _exchange(folder)


def finish_exchange(folder: Path) -> None:
    """After a kill: a new model that was whole takes its place, half of one is removed."""
    if (folder / "model.partial" / RUN).exists():
        _exchange(folder)
    shutil.rmtree(folder / "model.partial", ignore_errors=True)
    shutil.rmtree(folder / "model.old", ignore_errors=True)


def _exchange(folder: Path) -> None:
    final, old = folder / "model", folder / "model.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    (folder / "model.partial").rename(final)
    shutil.rmtree(old, ignore_errors=True)


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """With the first run. Errors: OSError."""
    write_json(settings, folder / SETTINGS)


def begin_run(folder: Path) -> None:
    """An empty folder: a run that was interrupted begins again. Errors: OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def end_run(folder: Path, run: TaskRun) -> None:
    """Errors: OSError."""
    write_json(asdict(run), folder / RUN)
