"""What a fine-tuning starts from: a pre-trained folder, a halved task teacher, a random start, a BiLSTM.

Models are transformers' own classes with the head of the task.
"""

import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from data.tokenizer import vocabulary_fingerprint
from evaluation.speed_models import weight_files
from evaluation.tasks import TASKS, Kind, Task
from finetuning.bilstm import BiLstm, BiLstmConfig
from finetuning.config import BILSTM, FinetuneConfig
from finetuning.predicting import with_exact_head
from model.families import FAMILIES
from model.hub import resolve_folder
from model.pruned_heads import hold_pruned_heads, name_pruned_heads, pruned_heads, renumbered
from model.student import default_layers

CLASSES = {
    Kind.CLASSIFICATION: transformers.AutoModelForSequenceClassification,
    Kind.REGRESSION: transformers.AutoModelForSequenceClassification,
    Kind.SPAN: transformers.AutoModelForQuestionAnswering,
}
# What a checkpoint without the task's head lacks, and what it has instead.
NEW = re.compile(r"^(classifier|pre_classifier|qa_outputs)\.|\.pooler\.")
LAYER = re.compile(r"(?<=\.layer\.)\d+(?=\.)")


@dataclass(frozen=True)
class Start:
    """Where every run of a command begins."""

    name: str
    """For people and result.json."""
    digest: str
    """Of the weights; results of other weights are not mixed with these."""
    model_type: str
    width: int
    """Of the hidden states."""
    tokenizer: Any
    """transformers' fast tokenizer."""
    max_length: int
    """Longest input that the model has positions for."""
    build: Callable[[int], nn.Module]
    """seed -> a fresh model in fp32 on the CPU; what is not copied is drawn from the seed."""


def choose_start(config: FinetuneConfig, task: Task) -> Start:
    """Errors: FileNotFoundError, or ValueError for a folder that is no such model or does not fit the task."""
    if config.model == BILSTM:
        return _bilstm(config, task)
    source = resolve_folder(config.model or config.teacher)
    build, model_config = _builder(config, task, source)
    name = config.model or f"half of {config.teacher}"
    tokenizer = load_tokenizer(source)
    _check_vocabulary(tokenizer, model_config.vocab_size, source)
    return Start(
        name=f"{name}, random start" if config.init == "random" else name,
        digest=digest_of(source),
        model_type=model_config.model_type,
        width=model_config.hidden_size,
        tokenizer=tokenizer,
        max_length=num_positions(model_config),
        build=build,
    )


def _builder(config: FinetuneConfig, task: Task, source: Path) -> tuple[Callable[[int], nn.Module], Any]:
    if not config.model:
        template = halve(load_task_model(source, task), config.student_layers)
        if config.init == "folder":
            return _seeded(lambda: copy.deepcopy(template)), template.config
        return _seeded(lambda: type(template)(template.config)), template.config
    if config.student_layers:
        raise ValueError("--student_layers says how a --teacher is halved; --model has the layers it has")
    model_config = read_model_config(source)
    for key, value in head_of(task).items():
        setattr(model_config, key, value)
    if config.init == "random":
        return _seeded(lambda: CLASSES[task.kind].from_config(model_config)), model_config
    return _seeded(lambda: _pretrained(source, task, model_config)), model_config


def _seeded(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        transformers.set_seed(seed)
        return with_exact_head(hold_pruned_heads(make().float()))

    return build


def _bilstm(config: FinetuneConfig, task: Task) -> Start:
    if task.kind is Kind.SPAN:
        raise ValueError(
            f"--model bilstm reads texts into one vector and has no spans: {task.title} needs another model"
        )
    folder = resolve_folder(config.teacher)
    tokenizer = load_tokenizer(folder)
    shape = BiLstmConfig(
        vocab_size=len(tokenizer),
        num_labels=task.num_outputs,
        pad_id=tokenizer.pad_token_id,
        sep_id=tokenizer.sep_token_id,
        is_pair=len(task.text_columns) == 2,
    )
    return Start(
        name=BILSTM,
        digest=f"vocabulary of {len(tokenizer)}",
        model_type=BILSTM,
        width=shape.hidden_size,
        tokenizer=tokenizer,
        max_length=num_positions(read_model_config(folder)),
        build=_seeded(lambda: BiLstm(shape)),
    )


def head_of(task: Task) -> dict[str, Any]:
    """What config.json says of the task's head."""
    if task.kind is Kind.SPAN:
        return {}
    if task.kind is Kind.REGRESSION:
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(task.labels))
    return {
        "num_labels": len(names),
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "problem_type": "single_label_classification",
    }


def read_model_config(folder: Path) -> Any:
    """Errors: FileNotFoundError, or ValueError for another architecture."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {folder}: not a Hugging Face model folder")
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{folder}/config.json: {str(error).splitlines()[0]}") from None
    if config.model_type not in FAMILIES:
        raise ValueError(f"{folder} is a {config.model_type}; fine-tuned are {', '.join(FAMILIES)}")
    return config


def load_tokenizer(folder: Path) -> Any:
    """transformers' fast one. Errors: ValueError."""
    if vocabulary_fingerprint(str(folder)) is None:  # transformers would make one of nothing but special tokens
        raise ValueError(f"{folder} has no tokenizer. Copy vocab.txt or tokenizer.json there, with its configuration")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, use_fast=True)
    except Exception as error:  # transformers and tokenizers raise a dozen unrelated types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{folder} has no tokenizer that transformers can load ({reason[0]}). Copy the tokenizer's files there"
        ) from None
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {folder} has no fast version, and answers need its offsets. Add a tokenizer.json"
        )
    return tokenizer


def load_task_model(folder: Path, task: Task) -> nn.Module:
    """A model that was fine-tuned on the task, in fp32. Errors: ValueError where its head is missing or another task's."""
    model_config = read_model_config(folder)
    model = _pretrained(folder, task, model_config, headless=False)
    if task.kind is not Kind.SPAN and model.config.num_labels != task.num_outputs:
        raise ValueError(
            f"{folder} has {model.config.num_labels} outputs, {task.title} needs {task.num_outputs}: "
            "it was fine-tuned on another task"
        )
    _check_classes(folder, task, model.config)
    return with_exact_head(model).eval()


def _check_classes(folder: Path, task: Task, config: Any) -> None:
    """By the names that config.json has of them, as far as they are a task's: LABEL_0 says nothing."""
    names = [str(config.id2label[number]).casefold() for number in range(len(task.labels))]
    if names == list(task.labels):
        return
    for other in (task, *TASKS.values()):
        if names and sorted(names) == sorted(other.labels):
            raise ValueError(
                f"{folder} has the classes {', '.join(names)} in this order, {task.title} has {', '.join(task.labels)}: "
                "it was fine-tuned on another task, or on other numbers of the same classes"
            )


def check_teacher(folder: Path, task: Task, student: nn.Module, with_hidden: bool) -> None:
    """Before anything is run. Errors: ValueError where it is no teacher of the task, or of this student."""
    teacher = load_task_model(folder, task)
    load_tokenizer(folder)
    if with_hidden and (one := teacher.config.hidden_size) != (two := student.config.hidden_size):
        raise ValueError(
            f"--cosine_weight compares hidden states: those of {folder} are {one} wide, the student's {two}. "
            "Leave it at 0"
        )


def halve(teacher: nn.Module, layers: tuple[int, ...] = ()) -> nn.Module:
    """A model of the teacher's class with some of its layers, everything else copied, the task's head too.

    A head that is pruned in a layer stays so. Errors: ValueError for a layer that is not there.
    """
    config = copy.deepcopy(teacher.config)
    num_layers = config.num_hidden_layers
    chosen = layers or default_layers(num_layers)
    if outside := [layer for layer in chosen if not 0 <= layer < num_layers]:
        raise ValueError(f"--student_layers {outside[0]}: the teacher has layers 0 to {num_layers - 1}")
    name_pruned_heads(config, renumbered(pruned_heads(config), chosen))
    setattr(config, "n_layers" if config.model_type == "distilbert" else "num_hidden_layers", len(chosen))
    weights = {}
    for name, value in teacher.state_dict().items():
        layer = LAYER.search(name)
        if layer is None:
            weights[name] = value
        for new in [new for new, old in enumerate(chosen) if layer and old == int(layer[0])]:
            weights[LAYER.sub(str(new), name)] = value
    student = type(teacher)(config)
    student.load_state_dict(weights)
    return student


def _pretrained(folder: Path, task: Task, model_config: Any, headless: bool = True) -> nn.Module:
    weight_files(folder)  # its error names what was looked for
    try:
        model, info = CLASSES[task.kind].from_pretrained(
            str(folder),
            config=model_config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=headless,
        )
    except (RuntimeError, SafetensorError, KeyError, TypeError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"transformers cannot load the weights of {folder}: {reason[0]}") from None
    changed = [name for name, *_ in info["mismatched_keys"]]
    lacking = sorted(name for name in {*info["missing_keys"], *changed} if not (headless and NEW.search(name)))
    if lacking:
        raise ValueError(
            f"{folder} lacks {len(lacking)} weights of a {type(model).__name__} ({', '.join(lacking[:3])}): "
            + ("it is no whole model" if headless else "fine-tune it first, and give the folder OUTPUT/TASK/model")
        )
    return model


def num_positions(config: Any) -> int:
    """Tokens of the longest input; RoBERTa counts positions from its padding id."""
    unused = config.pad_token_id + 1 if FAMILIES[config.model_type].counts_from_padding else 0
    return config.max_position_embeddings - unused


def digest_of(folder: Path) -> str:
    """sha256 of the weights, short."""
    hashed = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 24):
                hashed.update(chunk)
    return hashed.hexdigest()[:16]


def _check_vocabulary(tokenizer: Any, vocab_size: int, folder: Path) -> None:
    if len(tokenizer) > vocab_size:
        raise ValueError(f"{folder}: its tokenizer has {len(tokenizer):,} tokens, its model {vocab_size:,}")
    for role in ("pad_token_id", "cls_token_id", "sep_token_id"):
        if getattr(tokenizer, role) is None:
            raise ValueError(f"{folder}: its tokenizer has no {role.removesuffix('_id')}. Fine-tuning needs one")
