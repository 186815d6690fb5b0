"""Attention in C++ (attention.cpp) and its place in autograd.

Shapes: T real tokens, S sequences, A heads, D head width.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.kernels.native.library import call, check_operands
from model.kernels.philox import draw_seed, drop_below


class _Arguments(ctypes.Structure):
    """struct Attention of attention.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("qkv", "cu_seqlens", "out", "log_sum", "grad_out", "grad_qkv")),
        *((name, ctypes.c_int64) for name in ("tokens", "sequences", "heads", "width")),
        ("seed", ctypes.c_uint64),
        ("drop_below", ctypes.c_uint32),
    ]


def native_attention(qkv: Tensor, cu_seqlens: Tensor, dropout: float) -> Tensor:
    """Multi-head attention within each sequence: qkv (T, 3, A, D) bf16, cu_seqlens (S+1,) int32, both on the CPU ->
    (T, A * D). D is a multiple of 16. The dropout mask depends only on torch's default generator at the call: the
    weight of key j for query token t in head h is half j % 8 of philox(counter (t, j // 8, h, 0))."""
    qkv = qkv.contiguous()
    check_operands(qkv)
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.is_contiguous()
    assert qkv.shape[1] == 3
    assert qkv.shape[3] % 16 == 0
    return _NativeAttention.apply(qkv, cu_seqlens, dropout, draw_seed() if dropout > 0.0 else 0)


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cu_seqlens: Tensor, dropout: float, seed: int) -> Tensor:
        num_tokens, _, num_heads, width = qkv.shape
        out = qkv.new_empty(num_tokens, num_heads * width)
        log_sum = qkv.new_empty(num_heads, num_tokens, dtype=torch.float32)
        ctx.save_for_backward(qkv, cu_seqlens, out, log_sum)
        ctx.seed, ctx.drop_below = seed, drop_below(dropout)
        _call("attention_forward", ctx, qkv, cu_seqlens, out, log_sum)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv = ctx.saved_tensors[0]
        grad_qkv = torch.empty_like(qkv)
        _call("attention_backward", ctx, *ctx.saved_tensors, grad_out.contiguous(), grad_qkv)
        return grad_qkv, None, None, None


def _call(name: str, ctx: Any, qkv: Tensor, cu_seqlens: Tensor, *tensors: Tensor | None) -> None:
    num_tokens, _, num_heads, width = qkv.shape
    sizes = (num_tokens, cu_seqlens.shape[0] - 1, num_heads, width)
    call(name, _Arguments, (qkv, cu_seqlens, *tensors), *sizes, ctx.seed, ctx.drop_below)
