"""Linear layers in C++ (linear.cpp), with GELU fused in where it follows, and their place in autograd.

Shapes: T rows, K width of the input, N of the output.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.kernels.native.library import call, check_operands, library

FEWEST_ROWS = 8
"""A whole tile of the matrix product."""


class _Arguments(ctypes.Structure):
    """struct Linear of linear.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("input", "weight", "bias", "inner", "out")),
        *((name, ctypes.c_void_p) for name in ("grad_out", "grad_input", "grad_weight", "grad_bias")),
        *((name, ctypes.c_int64) for name in ("tokens", "width", "outputs", "has_gelu")),
    ]


def native_linear(hidden: Tensor, weight: Tensor, bias: Tensor, has_gelu: bool = False) -> Tensor:
    """hidden @ weight.T + bias, then the exact GELU if wanted: (T, K), (N, K), (N,) -> (T, N), all bf16 on the CPU; T at
    least 8, K and N multiples of 16."""
    hidden = hidden.contiguous()
    _check(hidden, weight, bias, hidden.shape[1])
    return _NativeLinear.apply(hidden, weight, bias, has_gelu, torch.is_grad_enabled())


class _NativeLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, has_gelu: bool, has_backward: bool) -> Tensor:
        out = hidden.new_empty(hidden.shape[0], weight.shape[0])
        inner = torch.empty_like(out) if has_gelu and has_backward and any(ctx.needs_input_grad) else None
        _call("linear_forward", has_gelu, hidden, weight, bias, inner, out)
        ctx.save_for_backward(hidden, weight, inner)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, inner = ctx.saved_tensors
        return *_gradients(hidden, weight, inner, grad_out), None, None


def native_feed_forward(
    hidden: Tensor, inner_weight: Tensor, inner_bias: Tensor, outer_weight: Tensor, outer_bias: Tensor
) -> Tensor:
    """native_linear(native_linear(hidden, inner, has_gelu=True), outer), whose backward computes GELU again: of the two
    (T, F) tensors between the layers it keeps one. (T, H), (F, H), (F,), (H, F), (H,) -> (T, H)."""
    hidden = hidden.contiguous()
    for weight, bias, width in (
        (inner_weight, inner_bias, hidden.shape[1]),
        (outer_weight, outer_bias, len(inner_bias)),
    ):
        _check(hidden, weight, bias, width)
    weights = (inner_weight, inner_bias, outer_weight, outer_bias)
    return _NativeFeedForward.apply(hidden, *weights, torch.is_grad_enabled())


class _NativeFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        inner_weight: Tensor,
        inner_bias: Tensor,
        outer_weight: Tensor,
        outer_bias: Tensor,
        has_backward: bool,
    ) -> Tensor:
        activated = hidden.new_empty(hidden.shape[0], inner_weight.shape[0])
        inner = torch.empty_like(activated) if has_backward and any(ctx.needs_input_grad) else None
        out = hidden.new_empty(hidden.shape[0], outer_weight.shape[0])
        _call("linear_forward", True, hidden, inner_weight, inner_bias, inner, activated)
        _call("linear_forward", False, activated, outer_weight, outer_bias, None, out)
        ctx.save_for_backward(hidden, inner_weight, inner, outer_weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, inner_weight, inner, outer_weight = ctx.saved_tensors
        activated = torch.empty_like(inner)
        pointers = (ctypes.c_void_p(inner.data_ptr()), ctypes.c_void_p(activated.data_ptr()))
        library().gelu_forward(*pointers, ctypes.c_int64(inner.numel()))
        grad_activated, *outer_grads = _gradients(activated, outer_weight, None, grad_out)
        del activated
        grad_hidden, *inner_grads = _gradients(hidden, inner_weight, inner, grad_activated)
        return grad_hidden, *inner_grads, *outer_grads, None


def _gradients(hidden: Tensor, weight: Tensor, inner: Tensor | None, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the input (T, K), the weight (N, K) and the bias (N,); `inner` (T, N) where GELU followed."""
    grads = torch.empty_like(hidden), torch.empty_like(weight), weight.new_empty(weight.shape[0], dtype=torch.float32)
    _call("linear_backward", inner is not None, hidden, weight, None, inner, None, grad_out.contiguous(), *grads)
    return grads[0], grads[1], grads[2].to(weight.dtype)


def _check(hidden: Tensor, weight: Tensor, bias: Tensor, width: int) -> None:
    check_operands(hidden, weight, bias)
    assert hidden.shape[0] >= FEWEST_ROWS
    assert weight.shape == (bias.shape[0], width)
    assert weight.shape[0] % 16 == weight.shape[1] % 16 == 0


def _call(name: str, has_gelu: bool, hidden: Tensor, weight: Tensor, *tensors: Tensor | None) -> None:
    call(name, _Arguments, (hidden, weight, *tensors), hidden.shape[0], hidden.shape[1], weight.shape[0], has_gelu)
