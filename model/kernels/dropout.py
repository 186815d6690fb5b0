"""Dropout whose random bits cost little on a CPU, where torch draws one uniform number an element on one thread.

16 random bits decide an element, so the probability is a multiple of 1/65536, and one draw of torch's generator serves
four elements. On a GPU torch's own dropout is used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def keep_mask(shape: tuple[int, ...], probability: float, generator: torch.Generator | None = None) -> Tensor:
    """A bool tensor on the CPU, false with `probability`."""
    count = torch.Size(shape).numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return (bits.view(torch.int16)[:count] >= round(probability * 65536) - 32768).view(shape)


def drop(tensor: Tensor, keep: Tensor, probability: float) -> Tensor:
    """Zero where `keep` is false, scaled up elsewhere so that the expected value stays."""
    return tensor * keep.to(tensor.dtype).mul_(1.0 / (1.0 - probability))


def dropout(tensor: Tensor, probability: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`; one byte an element is kept for backward."""
    if not training or probability == 0.0:
        return tensor
    if tensor.device.type != "cpu":
        return F.dropout(tensor, probability)
    return _Dropout.apply(tensor, probability)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, probability: float) -> Tensor:
        keep = keep_mask(tuple(tensor.shape), probability)
        ctx.save_for_backward(keep)
        ctx.probability = probability
        return drop(tensor, keep, probability)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return drop(grad, keep, ctx.probability), None
