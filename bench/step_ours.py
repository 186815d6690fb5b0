"""Our side of `bench.step`: packed encoder, chunked triple loss, bf16 student under fp32 masters, 16-bit teacher.

The optimizer is a plain torch AdamW in a plain loop, not the DeepSpeed engine: the other sides get the same, so that the
table compares models and losses. With several ranks it is plain data parallelism: one all-reduce of the fp32 gradients
in each update. bench/step_engine.py puts the same modules under the engine.
"""

import copy
import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.workload import BETAS, EPS, KERNELS, LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Workload
from data.batch import Batch
from model.bert import Prediction
from model.config import EncoderConfig, ObjectiveConfig
from model.kernels.choice import choose_kernels
from model.objective import TripleLoss
from model.student import make_random
from model.teacher import Teacher, choose_dtype
from training.engine import parameter_groups


class OurSide:
    """`dtype` is that of the student's weights."""

    def __init__(
        self, workload: Workload, batch: Batch, device: torch.device, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.workload, self.batch, self.dtype = workload, batch.to(device), dtype
        wanted = KERNELS.get(workload.variant, "auto")
        teacher_dtype, _ = choose_dtype("auto", device)
        self.teacher, why_teacher = make_teacher(workload.teacher, teacher_dtype, device, wanted)
        kernels, why = choose_kernels(wanted, "auto", workload.student, device, dtype)
        self.student = make_random(workload.student, kernels=kernels, seed=1).to(device)
        self.objective = TripleLoss(ObjectiveConfig(), kernels.vocab_loss)
        student_name, teacher_name = (str(t).removeprefix("torch.") for t in (dtype, teacher_dtype))
        self.setup = f"student {student_name} with fp32 masters, {why}; teacher {teacher_name}, {why_teacher}"
        self.start()

    def start(self) -> None:
        """Whatever holds masters and moments; casts the student."""
        self.optimizer = MasterAdamW(self.student, self.dtype)

    def teach(self) -> Prediction:
        return self.teacher(*self.layout())

    def study(self) -> Prediction:
        return self.student(*self.layout())

    def loss(self, prediction: Prediction, target: Prediction) -> Tensor:
        batch = self.batch
        of_update = self.workload.micro_batches * self.workload.ranks
        losses = self.objective(
            prediction,
            target,
            batch.masked_positions,
            batch.masked_labels,
            attended=batch.num_tokens * of_update,
            masked=batch.masked_positions.shape[0] * of_update,
        )
        return losses.total

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, is_last: bool) -> None:
        self.optimizer.accumulate()
        if is_last:
            self.optimizer.step()

    def layout(self) -> tuple[Tensor, Tensor, Tensor, int]:
        batch = self.batch
        return batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen


def make_teacher(
    config: EncoderConfig, dtype: torch.dtype, device: torch.device, wanted: str = "auto"
) -> tuple[Teacher, str]:
    config = dataclasses.replace(config, hidden_dropout=0.0, attention_dropout=0.0)
    kernels, why = choose_kernels(wanted, "auto", config, device, dtype)
    return Teacher(make_random(config, kernels=kernels, seed=0), dtype, device), why


class MasterAdamW:
    """AdamW on fp32 copies of a model's weights, with fp32 gradients; casts the model itself to `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        masters = copy.deepcopy(model)
        self.pairs = list(zip(model.to(dtype).parameters(), masters.parameters(), strict=True))
        groups = parameter_groups(masters, WEIGHT_DECAY)
        self.adamw = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=True)

    @torch.no_grad()
    def accumulate(self) -> None:
        """Move the model's gradients to the masters' own."""
        for weight, master in self.pairs:
            assert weight.grad is not None, "every weight of the student takes part in the loss"
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad.add_(weight.grad)
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Sum over ranks, clip, update the masters, copy them to the model; clears the gradients."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._sum_over_ranks()
        nn.utils.clip_grad_norm_([master for _, master in self.pairs], MAX_GRAD_NORM)
        self.adamw.step()
        self.adamw.zero_grad()
        for weight, master in self.pairs:
            weight.copy_(master)

    def _sum_over_ranks(self) -> None:
        gradients = [master.grad for _, master in self.pairs if master.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
