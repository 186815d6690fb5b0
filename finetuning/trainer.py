"""transformers' Trainer with our loss, and what it is told.

Its gradient accumulation, schedule, distributed training and DeepSpeed are used as they are. An update has the same
examples, each with the same weight, for any number of ranks and any micro-batch; only where an epoch's last update does
not divide among the ranks are some examples repeated. Logged are the components of rank 0's examples.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from command_line import is_first_rank
from evaluation.results import Cell
from evaluation.tasks import Kind
from finetuning.features import INPUTS, Collator, Feature, Features
from finetuning.grids import Recipe
from finetuning.objective import Weights, components, span_logits, total
from finetuning.predicting import first_hidden

LOGS_PER_RUN = 20


class TaskTrainer(transformers.Trainer):
    """Only the loss and the order of the examples differ; the loss's components are logged beside it."""

    def __init__(self, *args: Any, kind: Kind, weights: Weights, batch_size: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind, self.weights, self.batch_size = kind, weights, batch_size
        self.model_accepts_loss_kwargs = True  # the Trainer must not divide: compute_loss does, by examples
        self._sums: dict[str, Tensor] = {}
        self._micro_batches = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        """Inputs of like length beside each other, in an order of its own seed for each epoch.

        The Trainer's own draws from the generator of dropout, which ranks use up at different paces: from the second epoch
        on each would have another order, and examples would be missed and repeated.
        """
        assert isinstance(self.train_dataset, Features)
        lengths = [len(feature["input_ids"]) for feature in self.train_dataset.features]
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(self.batch_size, lengths=lengths, generator=generator)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """An update's micro-batches, and how many examples they have: the last of an epoch are smaller."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["input_ids"]) for batch in batches)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The micro-batch's part of the mean over this rank's examples of the update."""
        with first_hidden(model, wanted=bool(self.weights.cosine)) as seen:
            output = model(**{name: inputs[name] for name in INPUTS if name in inputs})
        if self.kind is Kind.SPAN:
            logits = span_logits(output.start_logits, output.end_logits, inputs["attention_mask"])
        else:
            logits = output.logits
        found = components(self.kind, logits, inputs, self.weights, seen[0] if seen else None)
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        self._micro_batches += 1
        loss = total(found, self.weights) * (len(inputs["input_ids"]) / num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._micro_batches:
            logs |= {f"loss_{name}": float(value) / self._micro_batches for name, value in self._sums.items()}
            self._sums, self._micro_batches = {}, 0
        super().log(logs, *args, **kwargs)


def make_trainer(
    model: nn.Module,
    features: Sequence[Feature],
    collator: Collator,
    *,
    kind: Kind,
    weights: Weights,
    cell: Cell,
    seed: int,
    recipe: Recipe,
    micro_batch: int,
    dtype: torch.dtype | None,
    ds_config: str,
    folder: Path,
) -> TaskTrainer:
    """Ready to train. `micro_batch` is a rank's share of a micro-batch. Errors: as `split_batch`."""
    size, accumulation = split_batch(cell.batch_size, micro_batch)
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        seed=seed,
        data_seed=seed,
        learning_rate=cell.learning_rate,
        num_train_epochs=cell.epochs,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_share,  # below 1 it is a share
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.adam_beta2,
        adam_epsilon=recipe.adam_epsilon,
        max_grad_norm=recipe.max_grad_norm,
        average_tokens_across_devices=False,  # what it would gather is not used
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=ds_config or None,
        ddp_find_unused_parameters=not (weights.task or weights.distillation),  # a head that no loss looks at
        remove_unused_columns=False,  # what is the loss's is no argument of the model
        save_strategy="no",
        logging_nan_inf_filter=False,  # it would report a mean of the finite losses
        logging_steps=1 / LOGS_PER_RUN,  # below 1 it is a share
        report_to=[],
        disable_tqdm=not (is_first_rank() and sys.stderr.isatty()),
        log_level="error",
        log_level_replica="error",
    )
    settings._n_gpu = min(1, settings.n_gpu)  # one GPU a process: several are for torchrun, not for DataParallel
    trainer = TaskTrainer(
        model=model,
        args=settings,
        train_dataset=Features(features),
        data_collator=collator,
        kind=kind,
        weights=weights,
        batch_size=cell.batch_size,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if trainer.is_world_process_zero():
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))))
    return trainer


def split_batch(batch_size: int, micro_batch: int) -> tuple[int, int]:
    """(examples that a rank holds at a time, micro-batches). Errors: ValueError for a batch that cannot be split."""
    num_ranks = int(os.environ.get("WORLD_SIZE", 1))
    per_rank, rest = divmod(batch_size, num_ranks)
    size = micro_batch or per_rank
    if rest or not per_rank or per_rank % size:
        raise ValueError(
            f"--batch_sizes {batch_size}: it does not divide into {num_ranks} ranks"
            + (f" and micro-batches of {micro_batch}" if micro_batch else "")
        )
    return size, per_rank // size
