"""What is pruned: a folder's model and tokenizer, and the task that it was fine-tuned on, if any."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from evaluation.results import FILE, read_result
from evaluation.speed_models import load
from evaluation.tasks import Task, task_named
from finetuning.grids import MAX_LENGTHS
from finetuning.starts import halve, load_task_model, load_tokenizer, num_positions, read_model_config
from model.config import read_json
from model.hub import read_config, resolve_folder
from pruning.config import PruneConfig

PRUNING = "pruning.json"
MASKED = "ForMaskedLM"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """In fp32 on the CPU, in evaluation mode."""

    folder: Path
    model: nn.Module
    """transformers' own, with its head."""
    tokenizer: Any
    """transformers' fast one."""
    task: Task | None
    """None for a masked language model."""
    max_length: int
    """Longest input to measure with, in tokens."""


def open_subject(config: PruneConfig) -> Subject:
    """Errors: FileNotFoundError, or ValueError for a folder that is no such model, or one whose task is not known."""
    folder = resolve_folder(config.model)
    model_config = read_model_config(folder)
    read_config(folder)  # refuses what the exported graph does not compute
    tokenizer = load_tokenizer(folder)
    task, usual = _task_of(config, folder, model_config)
    positions = num_positions(model_config)
    if config.max_length > positions:
        raise ValueError(f"--max_length {config.max_length}: {folder} has positions for {positions} tokens")
    return Subject(
        folder=folder,
        model=load_model(folder, task),
        tokenizer=tokenizer,
        task=task,
        max_length=min(config.max_length or usual, positions),
    )


def load_model(folder: Path, task: Task | None) -> nn.Module:
    """Errors: ValueError, FileNotFoundError."""
    return load(str(folder)).module if task is None else load_task_model(folder, task)


def keep_layers(subject: Subject, layers: tuple[int, ...]) -> nn.Module:
    """A model with those layers; with all of them where none is named. Errors: ValueError."""
    of = subject.model.config.num_hidden_layers
    if outside := [layer for layer in layers if layer >= of]:
        raise ValueError(f"--layers {outside[0]}: {subject.folder} has layers 0 to {of - 1}")
    return halve(subject.model, layers or tuple(range(of))).eval()


def _task_of(config: PruneConfig, folder: Path, model_config: Any) -> tuple[Task | None, int]:
    """The task, and the longest input that is usual there."""
    (architecture, *_) = model_config.architectures or ["a model of no named class"]
    if architecture.endswith(MASKED):
        if config.task:
            raise ValueError(
                f"--task {config.task}: {folder} is a masked language model. Fine-tune it, or leave --task out"
            )
        return None, 128
    if config.task:
        task = task_named(config.task)
        return task, MAX_LENGTHS.get(task.name, 128)
    if (folder / PRUNING).is_file():
        before = read_json(folder / PRUNING)
        if before.get("task") and isinstance(before.get("max_length"), int):
            return task_named(str(before["task"])), before["max_length"]
    if (folder.parent / FILE).is_file():
        result = read_result(folder.parent)
        usual = MAX_LENGTHS.get(result.task, 128)
        return task_named(result.task), int(result.settings.get("max_length", usual))
    raise ValueError(
        f"{folder} is {architecture} and no {FILE} of finetune.py is beside it: name with --task what it was "
        "fine-tuned on"
    )
