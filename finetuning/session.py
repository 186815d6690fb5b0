"""All runs of one task: which there are already, each of the others, and result.json."""

import gc
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from command_line import is_first_rank
from evaluation.results import Cell, TaskResult, TaskRun, write_result
from evaluation.tasks import Task
from finetuning.config import FinetuneConfig
from finetuning.folder import (
    begin_run,
    check_settings,
    end_run,
    finish_exchange,
    finished,
    keep,
    run_folder,
    write_settings,
)
from finetuning.grids import MAX_LENGTHS, cells_of, grid_of, recipe_of
from finetuning.material import Inputs, Part, collator_of, make_inputs, model_columns, read_parts, teach
from finetuning.objective import Weights
from finetuning.scoring import score_split
from finetuning.starts import Start, check_teacher, choose_start, digest_of
from finetuning.together import on_first_rank
from finetuning.trainer import make_trainer, split_batch
from model.hub import resolve_folder
from model.teacher import cpu_multiplies_bf16


@dataclass(frozen=True, kw_only=True)
class Session:
    """A task, before its first run."""

    config: FinetuneConfig
    task: Task
    start: Start
    columns: tuple[str, ...]
    """Of the tokenizer's, those that the model reads."""
    parameters: int
    teacher: Path | None
    parts: dict[str, Part]
    cells: list[Cell]
    max_length: int
    dtype: torch.dtype | None
    settings: dict[str, Any]
    """What all runs of a folder must have in common."""

    @property
    def folder(self) -> Path:
        return Path(self.config.output) / self.task.name

    @property
    def weights(self) -> Weights:
        return weights_of(self.config)


def weights_of(config: FinetuneConfig) -> Weights:
    if not config.teacher:
        return Weights()
    return Weights(
        distillation=config.distillation_weight,
        task=config.task_weight,
        cosine=config.cosine_weight,
        temperature=config.temperature,
    )


def prepare(config: FinetuneConfig, task: Task) -> Session:
    """Reads everything, so that what is wrong shows before the first run. Errors: OSError, ValueError."""
    start = choose_start(config, task)
    longest = config.max_length or MAX_LENGTHS.get(task.name, 128)
    if config.max_length > start.max_length:
        raise ValueError(f"--max_length {config.max_length}: {start.name} has positions for {start.max_length} tokens")
    cells = cells_of(config, grid_of(task, start.model_type, start.width))
    for cell in cells:
        split_batch(cell.batch_size, config.micro_batch)
    max_length, dtype = min(longest, start.max_length), choose_autocast(config.precision)
    model = start.build(0)
    teacher = resolve_folder(config.teacher) if config.teacher else None
    if teacher is not None:
        check_teacher(teacher, task, model, bool(config.cosine_weight))
    parts = read_parts(config, task)
    taught = {} if teacher is None else {"teacher_weights": digest_of(teacher), **asdict(weights_of(config))}
    return Session(
        config=config,
        task=task,
        start=start,
        columns=model_columns(model),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        teacher=teacher,
        parts=parts,
        cells=cells,
        max_length=max_length,
        dtype=dtype,
        settings={
            "weights": start.digest,
            "init": config.init,
            "student_layers": list(config.student_layers),
            "max_length": max_length,
            "precision": str(dtype or torch.float32).removeprefix("torch."),
            "examples": {name: part.digest for name, part in parts.items()},
            **taught,
        },
    )


def choose_autocast(precision: str) -> torch.dtype | None:
    """None for fp32. Errors: ValueError for fp16 without a GPU."""
    on_gpu = torch.cuda.is_available()
    if precision == "auto":
        multiplies_bf16 = torch.cuda.is_bf16_supported() if on_gpu else cpu_multiplies_bf16()
        return torch.bfloat16 if multiplies_bf16 else None
    if precision == "fp16" and not on_gpu:
        raise ValueError("--precision fp16 needs a GPU. Use bf16 or fp32")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def run_task(session: Session) -> TaskResult:
    """Together: every run that is not there yet, then result.json. Errors: OSError, ValueError."""
    todo = [(cell, seed) for cell in session.cells for seed in range(session.config.seeds)]
    done = dict(zip(todo, on_first_rank(lambda: _begin(session, todo)), strict=True))
    inputs: dict[str, Inputs] = {}
    for number, key in enumerate(todo, start=1):
        if done[key] is None:
            inputs = inputs or _inputs(session)
            run = done[key] = _run(session, inputs, *key)
            _say(f"{session.task.title} {number}/{len(todo)}: {describe(session.task, run)}")
    runs = tuple(run for run in done.values() if run is not None)
    return on_first_rank(lambda: _conclude(session, runs))


def _begin(session: Session, todo: list[tuple[Cell, int]]) -> list[TaskRun | None]:
    """What there is already of each run."""
    check_settings(session.folder, session.settings)
    finish_exchange(session.folder)
    return [finished(run_folder(session.folder, *key), session.task) for key in todo]


def _conclude(session: Session, runs: tuple[TaskRun, ...]) -> TaskResult:
    kept = finished(session.folder / "model", session.task)
    is_ours = kept is not None and (kept.cell, kept.seed) in [(run.cell, run.seed) for run in runs]
    result = TaskResult(
        task=session.task.name,
        model=session.start.name,
        parameters=session.parameters,
        teacher=session.config.teacher,
        settings=session.settings,
        data={name: part.used for name, part in session.parts.items()},
        runs=runs,
        saved="model" if is_ours else "",
    )
    write_result(result, session.folder)
    return result


def _inputs(session: Session) -> dict[str, Inputs]:
    tokenizer = session.start.tokenizer
    inputs = {
        name: make_inputs(session.task, part.examples, tokenizer, session.columns, session.max_length, name == "train")
        for name, part in session.parts.items()
    }
    if session.teacher is not None:
        train = inputs["train"]
        features = teach(
            session.teacher,
            session.task,
            session.parts["train"],
            train,
            max_length=session.max_length,
            with_pooled=bool(session.config.cosine_weight),
            dtype=session.dtype,
        )
        inputs["train"] = Inputs(features, train.windows)
    return inputs


def _run(session: Session, inputs: dict[str, Inputs], cell: Cell, seed: int) -> TaskRun:
    """Together: one fine-tuning, its scores and its model."""
    folder = run_folder(session.folder, cell, seed)
    on_first_rank(lambda: _begin_run(session, folder))
    model, collator = session.start.build(seed), collator_of(session.start.tokenizer)
    trainer = make_trainer(
        model,
        inputs["train"].features,
        collator,
        kind=session.task.kind,
        weights=session.weights,
        cell=cell,
        seed=seed,
        recipe=recipe_of(session.task, session.start.model_type),
        micro_batch=session.config.micro_batch,
        dtype=session.dtype,
        ds_config=session.config.ds_config,
        folder=folder,
    )
    started = time.monotonic()
    trained = trainer.train()
    seconds = time.monotonic() - started
    trained_model = trainer.accelerator.unwrap_model(trainer.model)
    scores, remarks = {}, dict[str, str]()
    for name in session.task.dev_splits:
        scored = score_split(
            trained_model,
            session.task,
            name,
            session.parts[name],
            inputs[name],
            collator,
            session.dtype,
            folder,
        )
        scores[name] = scored.scores
        remarks |= {f"{name} {metric}": text for metric, text in scored.remarks.items()}
    if not math.isfinite(trained.training_loss):
        remarks["training"] = f"the loss is {trained.training_loss}: this run diverged"
    run = TaskRun(
        cell=cell, seed=seed, scores=scores, remarks=remarks, train_loss=trained.training_loss, seconds=seconds
    )
    run = _end_run(session, folder, trained_model, run)
    del trainer, model, trained_model
    gc.collect()  # the Trainer and its accelerator refer to each other
    return run


def _begin_run(session: Session, folder: Path) -> None:
    write_settings(session.folder, session.settings)
    begin_run(folder)


def _end_run(session: Session, folder: Path, model: nn.Module, run: TaskRun) -> TaskRun:
    def write() -> TaskRun:
        if session.config.keep_model:
            keep(session.folder, session.task, model, session.start.tokenizer, run)
        end_run(folder, run)
        return run

    return on_first_rank(write)


def describe(task: Task, run: TaskRun) -> str:
    """A line of the console."""
    scores = ", ".join(
        f"{metric} {value:.4f}" + (f" ({split})" if len(task.dev_splits) > 1 else "")
        for split, by_metric in run.scores.items()
        for metric, value in by_metric.items()
    )
    cell = run.cell
    line = (
        f"batch {cell.batch_size}, learning rate {cell.learning_rate:g}, {cell.epochs} epochs, seed {run.seed}: {scores}; "
        f"{run.seconds:.0f} s"
    )
    return "; ".join([line, *(f"{what}: {text}" for what, text in run.remarks.items())])


def _say(line: str) -> None:
    if is_first_rank():
        print(line, flush=True)
