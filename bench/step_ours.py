"""Our side of `bench.step`: packed encoder, chunked triple loss, bf16 student under fp32 masters, 16-bit teacher.

The optimizer is a plain torch AdamW in a plain loop, not the DeepSpeed engine: the other sides get the same, so that the
table compares models and losses.
"""

import copy
import dataclasses

import torch
from torch import nn

from bench.workload import BETAS, EPS, LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Workload
from data.batch import Batch
from model.bert import MaskedLanguageModel, Prediction
from model.config import EncoderConfig, ObjectiveConfig
from model.kernels.choice import choose_kernels
from model.objective import TripleLoss
from model.student import make_random
from model.teacher import Teacher, choose_dtype
from training.distributed import keep_freed_memory
from training.engine import parameter_groups


class OurSide:
    def __init__(self, workload: Workload, batch: Batch, device: torch.device) -> None:
        if device.type == "cpu":
            keep_freed_memory()  # as every rank of train.py does
        self.batch = batch.to(device)
        teacher_dtype, _ = choose_dtype("auto", device)
        self.teacher, why_teacher = _make_teacher(workload.teacher, teacher_dtype, device)
        kernels, why = choose_kernels("auto", "auto", workload.student, device, torch.bfloat16)
        self.student = make_random(workload.student, kernels=kernels, seed=1).to(device)
        self.optimizer = MasterAdamW(self.student, torch.bfloat16)
        self.objective = TripleLoss(ObjectiveConfig(), kernels.vocab_loss)
        self.setup = (
            f"student bf16 with fp32 masters, {why}; teacher {str(teacher_dtype).removeprefix('torch.')}, {why_teacher}"
        )

    def teach(self) -> Prediction:
        return self._run(self.teacher)

    def study(self) -> Prediction:
        return self._run(self.student)

    def loss(self, prediction: Prediction, target: Prediction) -> torch.Tensor:
        batch = self.batch
        losses = self.objective(
            prediction,
            target,
            batch.masked_positions,
            batch.masked_labels,
            attended=batch.num_tokens,
            masked=batch.masked_positions.shape[0],
        )
        return losses.total

    def step(self) -> None:
        self.optimizer.step()

    def _run(self, model: MaskedLanguageModel | Teacher) -> Prediction:
        batch = self.batch
        return model(batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen)


def _make_teacher(config: EncoderConfig, dtype: torch.dtype, device: torch.device) -> tuple[Teacher, str]:
    config = dataclasses.replace(config, hidden_dropout=0.0, attention_dropout=0.0)
    kernels, why = choose_kernels("auto", "auto", config, device, dtype)
    return Teacher(make_random(config, kernels=kernels, seed=0), dtype, device), why


class MasterAdamW:
    """AdamW on fp32 copies of a model's weights; casts the model itself to `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        masters = copy.deepcopy(model)
        self.pairs = list(zip(model.to(dtype).parameters(), masters.parameters(), strict=True))
        groups = parameter_groups(masters, WEIGHT_DECAY)
        self.adamw = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """Clip, update the masters, copy them to the model; clears the gradients."""
        for weight, master in self.pairs:
            assert weight.grad is not None, "every weight of the student takes part in the loss"
            master.grad, weight.grad = weight.grad.float(), None
        nn.utils.clip_grad_norm_([master for _, master in self.pairs], MAX_GRAD_NORM)
        self.adamw.step()
        self.adamw.zero_grad()
        for weight, master in self.pairs:
            weight.copy_(master)
