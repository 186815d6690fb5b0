"""norm(residual + dropout(hidden)) in C++ (layer_norm.cpp) and its place in autograd.

Shapes: T rows, H width.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.kernels.native.library import call, check_operands
from model.kernels.philox import draw_seed, drop_below


class _Arguments(ctypes.Structure):
    """struct LayerNorm of layer_norm.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("hidden", "residual", "weight", "bias", "total", "mean", "inverse", "out")
        ),
        *((name, ctypes.c_void_p) for name in ("grad_out", "grad_hidden", "grad_residual", "grad_weight", "grad_bias")),
        *((name, ctypes.c_int64) for name in ("rows", "width")),
        ("seed", ctypes.c_uint64),
        ("drop_below", ctypes.c_uint32),
        ("epsilon", ctypes.c_float),
    ]


def native_layer_norm(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, probability: float
) -> Tensor:
    """(T, H), (T, H) or None, (H,), (H,) -> (T, H), all bf16 on the CPU, H a multiple of 16. The mask is
    `philox_keep_mask` of the seed drawn here, computed again in backward."""
    if residual is not None:
        residual = residual.contiguous()
    hidden = hidden.contiguous()
    check_operands(hidden, residual, weight, bias)
    assert residual is None or residual.shape == hidden.shape
    assert weight.shape == bias.shape == hidden.shape[1:]
    assert hidden.shape[1] % 16 == 0
    seed = draw_seed() if probability > 0.0 else 0
    return _NativeLayerNorm.apply(hidden, residual, weight, bias, eps, drop_below(probability), seed)


class _NativeLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        threshold: int,
        seed: int,
    ) -> Tensor:
        rows, width = hidden.shape
        total, out = torch.empty_like(hidden), torch.empty_like(hidden)
        mean, inverse = hidden.new_empty((2, rows), dtype=torch.float32).unbind()
        ctx.constants = (rows, width, seed, threshold, eps)
        tensors = (hidden, residual, weight, bias, total, mean, inverse, out)
        call("layer_norm_forward", _Arguments, tensors, *ctx.constants)
        ctx.save_for_backward(weight, total, mean, inverse)
        ctx.has_residual = residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        weight, total, mean, inverse = ctx.saved_tensors
        grad_hidden = torch.empty_like(total)
        is_dropped = ctx.constants[3] > 0
        grad_residual = torch.empty_like(total) if ctx.has_residual and is_dropped else None
        grad_weight, grad_bias = mean.new_empty((2, total.shape[1])).unbind()
        tensors = (None, None, weight, None, total, mean, inverse, None)
        grads = (grad_out.contiguous(), grad_hidden, grad_residual, grad_weight, grad_bias)
        call("layer_norm_backward", _Arguments, (*tensors, *grads), *ctx.constants)
        if ctx.has_residual and not is_dropped:
            grad_residual = grad_hidden
        return grad_hidden, grad_residual, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None, None, None
