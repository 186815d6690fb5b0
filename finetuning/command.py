"""finetune.py from its flags to its exit code."""

import contextlib
import logging
import math
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import transformers

from command_line import is_first_rank
from evaluation.results import TaskResult
from evaluation.tasks import TASKS, headline_score
from finetuning.config import FinetuneConfig
from finetuning.grids import grid_of
from finetuning.session import Session, prepare, run_task
from finetuning.together import everywhere, on_first_rank
from folders import locked
from model.config import read_json

DIVERGED = 3


def finetune(config: FinetuneConfig) -> int:
    """The exit code. Errors: ValueError and FileNotFoundError for bad input, OSError where nothing can be written."""
    _quiet()
    if config.ds_config:
        check_ds_config(Path(config.ds_config))
    _join_ranks()
    try:
        sessions = everywhere(lambda: [prepare(config, TASKS[name]) for name in config.task])
        with contextlib.ExitStack() as locks:
            on_first_rank(lambda: [locks.enter_context(locked(session.folder)) for session in sessions] and None)
            results = []
            for session in sessions:
                _introduce(session)
                results.append(run_task(session))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    for result in results:
        _conclude(result, Path(config.output))
    hopeless = [result.task for result in results if math.isnan(result.headline(result.chosen))]
    if hopeless and is_first_rank():
        print(f"error: no run of {', '.join(hopeless)} has a score; lower --learning_rates", file=sys.stderr)
    return DIVERGED if hopeless else 0


def check_ds_config(path: Path) -> None:
    """Errors: ValueError for what transformers' Trainer would compute something else with."""
    ds = read_json(path)
    if ds.get("gradient_allreduce_op") == "sum":
        raise ValueError(
            f"{path}: gradient_allreduce_op is sum, which fits train.py; fine-tuning averages. "
            "Use ds_configs/finetune/zero2.json"
        )
    if ds.get("zero_optimization", {}).get("stage", 0) > 2:
        raise ValueError(f"{path}: ZeRO stage 3 is for models that do not fit on a GPU. Use stage 1 or 2")


def _join_ranks() -> None:
    """Before the teacher is asked; the Trainer uses the same group."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def _quiet() -> None:
    """Of the libraries' progress and hints, only errors."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("DeepSpeed", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def _introduce(session: Session) -> None:
    if not is_first_rank():
        return
    task, grid = session.task, grid_of(session.task, session.start.model_type, session.start.width)
    named = session.config.batch_sizes or session.config.learning_rates or session.config.epochs
    runs = len(session.cells) * session.config.seeds
    print(
        f"{task.title}: {session.start.name}, {len(session.cells)} cells x {session.config.seeds} seeds = {runs} runs, "
        f"inputs of up to {session.max_length} tokens, {session.settings['precision']}. "
        f"Grid: {'as given, the rest from ' if named else ''}{grid.source}"
    )
    for name, part in session.parts.items():
        subset = f" of {part.used.of:,}" if part.used.examples < part.used.of else ""
        print(f"  {name}: {part.used.examples:,}{subset} examples from {', '.join(part.used.files)}")
        for skipped in part.skipped:
            print(f"  {name}: left out: {skipped}")
    if session.config.teacher:
        w = session.weights
        print(
            f"  teacher {session.config.teacher}: {w.distillation:g} x soft targets at temperature {w.temperature:g} + "
            f"{w.task:g} x task + {w.cosine:g} x cosine"
        )
    print(end="", flush=True)


def _conclude(result: TaskResult, output: Path) -> None:
    if not is_first_rank():
        return
    task, cell = TASKS[result.task], result.chosen
    medians = ", ".join(
        f"{metric} {value:.4f}" + (f" ({split})" if len(task.dev_splits) > 1 else "")
        for split, scores in result.median().items()
        for metric, value in scores.items()
    )
    values = [f"{headline_score(task, run.scores):.4f}" for run in result.chosen_runs]
    print(
        f"{task.title}: median of {len(values)} seeds {medians} with batch {cell.batch_size}, learning rate "
        f"{cell.learning_rate:g}, {cell.epochs} epochs ({task.headline} of the seeds: {' '.join(values)}), chosen on dev; "
        f"{output / task.name / 'result.json'}",
        flush=True,
    )
