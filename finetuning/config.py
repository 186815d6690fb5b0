"""The flags of finetune.py. Nothing here imports torch, so that --help answers at once."""

import math
from dataclasses import dataclass
from typing import Literal

from evaluation.tasks import SQUAD, task_named

BILSTM = "bilstm"
"""In --model: a small recurrent network instead of a folder."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What to fine-tune, on which tasks, and how often."""

    task: tuple[str, ...]
    """cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli, imdb or squad; several are done one after the other."""
    model: str = ""
    """Folder or hub id of a BERT, DistilBERT or RoBERTa, with or without a head; or the word bilstm. Without it, the
    student is made of --teacher: half of its layers, its task head copied."""
    data: str = "hf:"
    """Folder with the published files (a task's own, or one with glue/, imdb/ and squad/ in it), a file of SQuAD, or
    hf:NAME for a data set of the hub; hf: alone is the task's own."""
    train_data: str = ""
    """Where the training examples of the one task are, if elsewhere."""
    output: str = "runs/finetune"
    """Folder of the results, TASK/result.json in it; what is there already is not run again."""
    seeds: int = 5
    """Runs of each cell of the grid, with seeds 0, 1, ...; the median is reported, all are kept."""
    learning_rates: tuple[float, ...] = ()
    """Of the grid. Default: the published ones of task, family and width."""
    batch_sizes: tuple[int, ...] = ()
    """Examples of an update, on all ranks together. Default: the published ones."""
    epochs: tuple[int, ...] = ()
    """Passes over the training examples. Default: the published ones."""
    micro_batch: int = 0
    """Examples that a rank holds at a time; the rest of a batch is accumulated. Default: all of its share."""
    max_length: int = 0
    """Longest input in tokens. Default: 128 for GLUE, 512 for IMDb, 384 for SQuAD."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the products (autocast); weights stay in fp32. auto: bf16 where GPU or CPU multiply it, else fp32."""
    ds_config: str = ""
    """DeepSpeed JSON in the form of transformers' Trainer ("auto" values), under the deepspeed launcher or torchrun."""
    train_examples: int = 0
    """Train on so many, drawn at random but the same for every model; 0: all. Tables mark the subset."""
    eval_examples: int = 0
    """Evaluate on so many, spread over the split; 0: all. Tables mark the subset."""
    keep_model: bool = True
    """Keep the best run's model in OUTPUT/TASK/model, for example as the teacher of a second distillation."""

    teacher: str = ""
    """Folder or hub id of a model fine-tuned on the same task: a second distillation, from its soft targets."""
    temperature: float = 2.0
    """Of the soft targets (classes and spans; a regression follows the teacher's number itself)."""
    distillation_weight: float = 0.5
    """Of the soft targets in the loss."""
    task_weight: float = 0.5
    """Of the gold labels in the loss. Without --teacher the weight is 1."""
    cosine_weight: float = 0.0
    """Of 1 - cos between the first token's last hidden states of both; not for spans."""
    student_layers: tuple[int, ...] = ()
    """Layers of the teacher that a halved student keeps. Default: half of them, evenly spread."""
    init: Literal["folder", "random"] = "folder"
    """random: the shape of --model (or of the halved teacher) from BERT's random start, without pre-training."""
    local_rank: int = -1
    """Passed by the deepspeed launcher; leave it alone."""

    def __post_init__(self) -> None:
        for name in self.task:
            task_named(name)
        if not self.task or len(set(self.task)) != len(self.task):
            raise ValueError(f"--task {' '.join(self.task)}: name at least one task, each once")
        if not self.model and not self.teacher:
            raise ValueError("give --model FOLDER to fine-tune, or --teacher FOLDER to make a student of")
        if self.model == BILSTM and not self.teacher:
            raise ValueError("--model bilstm reads the tokens of its teacher: give --teacher FOLDER")
        if self.train_data and len(self.task) > 1:
            raise ValueError(f"--train_data {self.train_data}: it is one task's, but --task names {len(self.task)}")
        if self.teacher and len(self.task) > 1:
            raise ValueError(f"--teacher {self.teacher}: it knows one task, but --task names {len(self.task)}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("micro_batch", "max_length", "train_examples", "eval_examples"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: 0 for the default, or a positive number")
        if self.seeds < 1:
            raise ValueError(f"--seeds {self.seeds}: at least 1 is needed")
        for name in ("learning_rates", "batch_sizes", "epochs"):
            if wrong := [value for value in getattr(self, name) if not (value > 0 and math.isfinite(value))]:
                raise ValueError(f"--{name} {wrong[0]}: it must be above 0")
        weights = (self.distillation_weight, self.task_weight, self.cosine_weight)
        if not all(weight >= 0 and math.isfinite(weight) for weight in weights) or not any(weights):
            raise ValueError(
                f"--distillation_weight {weights[0]} --task_weight {weights[1]} --cosine_weight {weights[2]}: "
                "none may be negative, and one must be above 0"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"--temperature {self.temperature}: it must be above 0")
        if self.cosine_weight and not self.teacher:
            raise ValueError(f"--cosine_weight {self.cosine_weight} needs a --teacher to be near to")
        if self.cosine_weight and (self.model == BILSTM or self.task == (SQUAD.name,)):
            what = "a bilstm has no such hidden states" if self.model == BILSTM else "spans have no such vector"
            raise ValueError(f"--cosine_weight {self.cosine_weight}: {what}. Leave it at 0")
