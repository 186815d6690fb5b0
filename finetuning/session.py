"""All runs of one task: which there are already, each of the others, and result.json."""

import gc
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from command_line import is_first_rank
from evaluation.results import Cell, TaskResult, TaskRun, read_run, write_json, write_result
from evaluation.tasks import Task, headline_score
from finetuning.config import FinetuneConfig
from finetuning.grids import MAX_LENGTHS, cells_of, grid_of, recipe_of
from finetuning.material import Inputs, Part, collator_of, make_inputs, model_columns, read_parts, teach
from finetuning.objective import Weights
from finetuning.scoring import score_split
from finetuning.starts import Start, choose_start, digest_of
from finetuning.trainer import make_trainer, split_batch
from model.teacher import cpu_multiplies_bf16

RUN = "run.json"


@dataclass(frozen=True)
class Session:
    """A task, before its first run."""

    config: FinetuneConfig
    task: Task
    start: Start
    parts: dict[str, Part]
    cells: list[Cell]
    max_length: int
    dtype: torch.dtype | None

    @property
    def folder(self) -> Path:
        return Path(self.config.output) / self.task.name

    @property
    def weights(self) -> Weights:
        c = self.config
        if not c.teacher:
            return Weights()
        return Weights(
            distillation=c.distillation_weight, task=c.task_weight, cosine=c.cosine_weight, temperature=c.temperature
        )

    def settings(self) -> dict[str, Any]:
        """What all runs of a folder must have in common."""
        taught = {}
        if self.config.teacher:
            taught = {"teacher_weights": digest_of(Path(self.config.teacher).expanduser()), **asdict(self.weights)}
        return {
            "weights": self.start.digest,
            "init": self.config.init,
            "student_layers": list(self.config.student_layers),
            "max_length": self.max_length,
            "precision": str(self.dtype or torch.float32).removeprefix("torch."),
            "examples": {name: part.digest for name, part in self.parts.items()},
            **taught,
        }


def prepare(config: FinetuneConfig, task: Task) -> Session:
    """Reads everything, so that what is wrong shows before the first run. Errors: OSError, ValueError."""
    start = choose_start(config, task)
    longest = config.max_length or MAX_LENGTHS.get(task.name, 128)
    if config.max_length > start.max_length:
        raise ValueError(f"--max_length {config.max_length}: {start.name} has positions for {start.max_length} tokens")
    cells = cells_of(config, grid_of(task, start.model_type))
    for cell in cells:
        split_batch(cell.batch_size, config.micro_batch)
    session = Session(
        config=config,
        task=task,
        start=start,
        parts=read_parts(config, task),
        cells=cells,
        max_length=min(longest, start.max_length),
        dtype=choose_autocast(config.precision),
    )
    _check_settings(session)
    return session


def choose_autocast(precision: str) -> torch.dtype | None:
    """None for fp32. Errors: ValueError for fp16 without a GPU."""
    on_gpu = torch.cuda.is_available()
    if precision == "auto":
        multiplies_bf16 = torch.cuda.is_bf16_supported() if on_gpu else cpu_multiplies_bf16()
        return torch.bfloat16 if multiplies_bf16 else None
    if precision == "fp16" and not on_gpu:
        raise ValueError("--precision fp16 needs a GPU. Use bf16 or fp32")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _check_settings(session: Session) -> None:
    path = session.folder / "settings.json"
    wanted = session.settings()
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name in wanted:
            if before.get(name) != wanted[name]:
                raise ValueError(
                    f"{session.folder} has runs with {name} {before.get(name)}, these would have {wanted[name]}. "
                    "Give another --output, or delete the folder"
                )


def run_task(session: Session) -> TaskResult:
    """Together: every run that is not there yet, then result.json. Errors: OSError."""
    session.folder.mkdir(parents=True, exist_ok=True)
    if is_first_rank():
        write_json(session.settings(), session.folder / "settings.json")
    todo = [(cell, seed) for cell in session.cells for seed in range(session.config.seeds)]
    done = {key: _finished(session, *key) for key in todo}
    inputs: dict[str, Inputs] = {}
    for number, key in enumerate(todo, start=1):
        if done[key] is None:
            inputs = inputs or _inputs(session)
            run = done[key] = _run(session, inputs, *key, best=_best(session, list(done.values())))
            _say(f"{session.task.title} {number}/{len(todo)}: {describe(session.task, run)}")
    result = _result(session, [run for run in done.values() if run is not None])
    if is_first_rank():
        write_result(result, session.folder)
    return result


def _inputs(session: Session) -> dict[str, Inputs]:
    model = session.start.build(0)
    tokenizer, columns = session.start.tokenizer, model_columns(model)
    inputs = {
        name: make_inputs(session.task, part.examples, tokenizer, columns, session.max_length, name == "train")
        for name, part in session.parts.items()
    }
    if session.config.teacher:
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        train = inputs["train"]
        taught = teach(
            session.config,
            session.task,
            session.parts["train"],
            train,
            tokenizer,
            session.max_length,
            device,
            session.dtype,
        )
        inputs["train"] = Inputs(taught, train.windows)
    return inputs


def _run(session: Session, inputs: dict[str, Inputs], cell: Cell, seed: int, best: float) -> TaskRun:
    """One fine-tuning; its model is kept where it is better than `best`."""
    folder = _folder(session, cell, seed)
    if is_first_rank():
        shutil.rmtree(folder, ignore_errors=True)  # a run that was interrupted begins again
        folder.mkdir(parents=True)
    model, collator = session.start.build(seed), collator_of(session.start.tokenizer)
    trainer = make_trainer(
        model,
        inputs["train"].features,
        collator,
        kind=session.task.kind,
        weights=session.weights,
        cell=cell,
        seed=seed,
        recipe=recipe_of(session.start.model_type),
        micro_batch=session.config.micro_batch,
        dtype=session.dtype,
        ds_config=session.config.ds_config,
        folder=folder,
    )
    started = time.monotonic()
    trained = trainer.train()
    seconds = time.monotonic() - started
    scores, remarks = {}, dict[str, str]()
    for name in session.task.dev_splits:
        scored = score_split(
            trainer.accelerator.unwrap_model(trainer.model),
            session.task,
            name,
            session.parts[name],
            inputs[name],
            collator,
            session.dtype,
            folder if is_first_rank() else None,
        )
        scores[name] = scored.scores
        remarks |= {f"{name} {metric}": text for metric, text in scored.remarks.items()}
    if not math.isfinite(trained.training_loss):
        remarks["training"] = f"the loss is {trained.training_loss}: this run diverged"
    run = TaskRun(
        cell=cell, seed=seed, scores=scores, remarks=remarks, train_loss=trained.training_loss, seconds=seconds
    )
    if session.config.keep_model and headline_score(session.task, scores) > best:
        _keep(session, trainer.accelerator.unwrap_model(trainer.model), run)
    if is_first_rank():
        write_json(asdict(run), folder / RUN)
    del trainer, model
    gc.collect()  # the Trainer and its accelerator refer to each other
    return run


def _keep(session: Session, model: nn.Module, run: TaskRun) -> None:
    """The best model so far, with its tokenizer, whole or not at all."""
    if not is_first_rank():
        return
    final, partial = session.folder / "model", session.folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    model.float().save_pretrained(partial)
    session.start.tokenizer.save_pretrained(partial)
    write_json(asdict(run), partial / RUN)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _best(session: Session, runs: list[TaskRun | None]) -> float:
    """Headline of the model that is kept: nothing if there is none."""
    if not (session.folder / "model" / RUN).exists():
        return -math.inf
    known = [headline_score(session.task, run.scores) for run in runs if run is not None]
    return max((value for value in known if not math.isnan(value)), default=-math.inf)


def _finished(session: Session, cell: Cell, seed: int) -> TaskRun | None:
    path = _folder(session, cell, seed) / RUN
    return read_run(session.task, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _folder(session: Session, cell: Cell, seed: int) -> Path:
    name = f"batch-{cell.batch_size}_rate-{cell.learning_rate:g}_epochs-{cell.epochs}_seed-{seed}"
    return session.folder / "runs" / name


def _result(session: Session, runs: list[TaskRun]) -> TaskResult:
    has_model = (session.folder / "model" / RUN).exists()
    return TaskResult(
        task=session.task.name,
        model=session.start.name,
        parameters=sum(p.numel() for p in session.start.build(0).parameters()),
        teacher=session.config.teacher,
        settings=session.settings(),
        data={name: part.used for name, part in session.parts.items()},
        runs=tuple(runs),
        saved="model" if has_model else "",
    )


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
