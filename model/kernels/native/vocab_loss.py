"""The vocabulary loss in C++ (vocab_loss.cpp): its arguments.

Shapes: T tokens, M of them masked, H width, V padded vocabulary.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from model.kernels.native.library import call

WORKSPACE_BYTES = 64e6
"""For the logits of a chunk, fp32, of both models. The larger the chunk, the fewer passes over W and dW: at V = 30,528
chunks of 96, 144, 192, 240 and 480 tokens took 1.33, 1.07, 1.05, 1.00 and 0.96 of the time of those that fit here."""
TILE_TOKENS = 48
"""A full tile of the matrix products; rows of W and features come in multiples of 16."""


class Projection(NamedTuple):
    """One model's side, bf16 on the CPU."""

    features: Tensor
    """(T, H)"""
    weight: Tensor
    """(V, H)"""
    bias: Tensor
    """(V,)"""


class Result(NamedTuple):
    kl: Tensor
    """Sum over tokens of the divergence at the temperature, fp32."""
    nll: Tensor
    """Sum over masked tokens of the negative log-likelihood, fp32."""
    grad_features: Tensor
    """(T, H) fp32: of kl_scale * temperature * kl + mlm_scale * nll, as the two below."""
    grad_weight: Tensor
    """(V, H) fp32"""
    grad_bias: Tensor
    """(V,) fp32"""


class _Arguments(ctypes.Structure):
    """struct VocabLoss of vocab_loss.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("student_features", "student_weight", "student_bias")),
        *((name, ctypes.c_void_p) for name in ("teacher_features", "teacher_weight", "teacher_bias")),
        *((name, ctypes.c_void_p) for name in ("order", "labels")),
        *((name, ctypes.c_void_p) for name in ("grad_features", "grad_weight", "grad_bias", "sums")),
        *((name, ctypes.c_int64) for name in ("tokens", "num_masked", "width", "teacher_width")),
        *((name, ctypes.c_int64) for name in ("vocab_rows", "vocab_size", "chunk")),
        *((name, ctypes.c_float) for name in ("temperature", "kl_scale", "mlm_scale")),
    ]


def can_run(student: Projection, teacher: Projection | None) -> bool:
    """Whether dtypes, device and shapes are those of the C++ walk."""
    sides = [student] if teacher is None else [student, teacher]
    if student.features.shape[0] == 0 or sides[-1].weight.shape[0] != student.weight.shape[0]:
        return False
    return all(
        tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and side.weight.shape[0] % 16 == 0
        for side in sides
        for tensor in side
    ) and all(side.weight.shape[1] % 16 == 0 for side in sides)


def chunk_size(num_tokens: int, vocab_rows: int) -> int:
    """Tokens at a time: whole tiles within the workspace, evenly spread over the chunks that are needed."""
    largest = max(1, int(WORKSPACE_BYTES / (8 * vocab_rows * TILE_TOKENS))) * TILE_TOKENS
    num_chunks = -(-num_tokens // largest)
    return -(-num_tokens // (num_chunks * TILE_TOKENS)) * TILE_TOKENS


def walk(
    student: Projection,
    teacher: Projection | None,
    order: Tensor,
    labels: Tensor,
    *,
    vocab_size: int,
    temperature: float,
    kl_scale: float,
    mlm_scale: float,
    chunk_tokens: int = 0,
) -> Result:
    """Both sums and their gradients; d(loss)/d(logits) = kl_scale * (p_student - p_teacher) + mlm_scale * (softmax -
    one-hot). `order` (T,) int64 puts the masked tokens, whose `labels` (M,) int64 these are, first.

    Raises:
        MemoryError: the logits of a chunk do not fit.
    """
    inputs = [t.contiguous() for t in (student.features, student.weight)] + [student.bias.float()]
    if teacher is not None:
        inputs += [teacher.features.contiguous(), teacher.weight.contiguous(), teacher.bias.float()]
    grads = tuple(torch.empty_like(tensor, dtype=torch.float32) for tensor in inputs[:3])
    sums = torch.zeros(2, dtype=torch.float64)
    (num_tokens, width), vocab_rows = inputs[0].shape, inputs[1].shape[0]
    chunk = -(-chunk_tokens // 16) * 16 or chunk_size(num_tokens, vocab_rows)
    call(
        "vocab_loss",
        _Arguments,
        (*inputs, *[None] * (6 - len(inputs)), order, labels, *grads, sums),
        *(num_tokens, labels.shape[0], width, width if teacher is None else teacher.features.shape[1]),
        *(vocab_rows, vocab_size, chunk),
        *(temperature, kl_scale, mlm_scale),
    )
    kl, nll = sums.float().unbind()
    return Result(kl, nll, *grads)
