"""norm(residual + dropout(hidden)), forward and backward.

Backward reads hidden and residual again instead of a saved sum: per element 6 bytes in forward and 10 in backward against
8 and 8, the same traffic and memory, and the sum is never rounded to 16 bits. Only mean and 1/std are kept.

Shapes: T rows, H width, P programs of backward, each with its own partial sums of the weight's and bias's gradients.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.philox import draw_seed_on, drop_below
from model.kernels.triton_kernels.bits import keep_tile, num_programs, rows_are_grouped, seed_or_placeholder

ELEMENTS_OF_TILE = 1024
"""A tile is one row of BERT-base, or several narrower ones: 8 elements, one 16-byte load, for each of 128 threads."""
PROGRAMS_PER_MULTIPROCESSOR = 6
"""Resident at once with the 70 registers a thread that the compiler takes (7 would fit)."""


def layer_norm(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, probability: float
) -> Tensor:
    """hidden and residual (T, H) of one dtype, weight and bias (H,) -> (T, H)."""
    seed = draw_seed_on(hidden.device) if probability > 0.0 else None
    return _LayerNorm.apply(hidden, residual, weight, bias, eps, probability, seed)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        probability: float,
        seed: Tensor | None,
    ) -> Tensor:
        hidden = hidden.contiguous()
        residual = None if residual is None else residual.contiguous()
        width = hidden.shape[-1]
        num_rows = hidden.numel() // width
        out = torch.empty_like(hidden)
        mean, rstd = hidden.new_empty((2, num_rows), dtype=torch.float32).unbind()
        tile = _tile(width)
        _forward[(triton.cdiv(num_rows, tile["ROWS"]),)](
            *_inputs(hidden, residual, seed), weight, bias, out, mean, rstd, num_rows, width, eps,
            drop_below(probability), 1.0 / (1.0 - probability), residual is not None, seed is not None, **tile,
        )  # fmt: skip
        ctx.save_for_backward(hidden, residual, weight, mean, rstd, seed)
        ctx.probability, ctx.bias_dtype = probability, bias.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, residual, weight, mean, rstd, seed = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        width = hidden.shape[-1]
        num_rows = hidden.numel() // width
        tile = _tile(width)
        programs = min(
            num_programs(hidden.device, PROGRAMS_PER_MULTIPROCESSOR), max(1, triton.cdiv(num_rows, tile["ROWS"]))
        )
        grad_total = torch.empty_like(hidden)
        grad_hidden = grad_total if seed is None else torch.empty_like(hidden)
        partial = hidden.new_empty((2, programs, width), dtype=torch.float32)
        _backward[(programs,)](
            *_inputs(hidden, residual, seed), weight, grad_out, mean, rstd, grad_hidden, grad_total, partial, num_rows,
            width, drop_below(ctx.probability), 1.0 / (1.0 - ctx.probability), residual is not None, seed is not None,
            **tile,
        )  # fmt: skip
        grad_weight, grad_bias = partial.sum(1).unbind()
        grad_residual = None if residual is None else grad_total
        parameters = (grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype))
        return grad_hidden, grad_residual, *parameters, None, None, None


def _inputs(hidden: Tensor, residual: Tensor | None, seed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return hidden, hidden if residual is None else residual, seed_or_placeholder(seed, hidden)


def _tile(width: int) -> dict[str, Any]:
    """Rows and columns of a tile; a row is always whole."""
    block = max(8, triton.next_power_of_2(width))
    return {
        "GROUPED": rows_are_grouped(width),
        "ROWS": max(1, ELEMENTS_OF_TILE // block),
        "BLOCK": block,
        "num_warps": 4 if block <= 2048 else 8,
    }


@triton.jit
def _pre_norm(
    hidden_ptr, residual_ptr, seed_ptr, rows, inside, width, drop_below, keep_scale,
    HAS_RESIDUAL: tl.constexpr, HAS_DROPOUT: tl.constexpr, GROUPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """residual + dropout(hidden) of a tile in fp32, zero outside, and what dropout multiplied by."""
    starts = rows.to(tl.int64) * width
    places = starts[:, None] + tl.arange(0, BLOCK)[None, :]
    total = tl.load(hidden_ptr + places, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0
    if HAS_DROPOUT:
        keep = keep_tile(tl.load(seed_ptr), starts, drop_below, BLOCK, GROUPED)
        factor = tl.where(keep, keep_scale, 0.0)
        total = total * factor
    if HAS_RESIDUAL:
        total += tl.load(residual_ptr + places, mask=inside, other=0.0).to(tl.float32)
    return total, factor, places


@triton.jit
def _forward(
    hidden_ptr, residual_ptr, seed_ptr, weight_ptr, bias_ptr, out_ptr, mean_ptr, rstd_ptr, num_rows, width, eps,
    drop_below, keep_scale, HAS_RESIDUAL: tl.constexpr, HAS_DROPOUT: tl.constexpr, GROUPED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    total, _, places = _pre_norm(
        hidden_ptr, residual_ptr, seed_ptr, rows, inside, width, drop_below, keep_scale,
        HAS_RESIDUAL, HAS_DROPOUT, GROUPED, BLOCK,
    )  # fmt: skip
    mean = tl.sum(total, axis=1) / width
    centred = tl.where(inside, total - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    out = centred * rstd[:, None] * weight[None, :] + bias[None, :]
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + rows, mean, mask=rows < num_rows)
    tl.store(rstd_ptr + rows, rstd, mask=rows < num_rows)


@triton.jit
def _backward(
    hidden_ptr, residual_ptr, seed_ptr, weight_ptr, grad_out_ptr, mean_ptr, rstd_ptr, grad_hidden_ptr, grad_total_ptr,
    partial_ptr, num_rows, width, drop_below, keep_scale, HAS_RESIDUAL: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    GROUPED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    weight_sums = tl.zeros((ROWS, BLOCK), tl.float32)
    bias_sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(program * ROWS, num_rows, programs * ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
        total, factor, places = _pre_norm(
            hidden_ptr, residual_ptr, seed_ptr, rows, inside, width, drop_below, keep_scale,
            HAS_RESIDUAL, HAS_DROPOUT, GROUPED, BLOCK,
        )  # fmt: skip
        mean = tl.load(mean_ptr + rows, mask=rows < num_rows, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=rows < num_rows, other=0.0)
        normal = tl.where(inside, (total - mean[:, None]) * rstd[:, None], 0.0)
        grad = tl.load(grad_out_ptr + places, mask=inside, other=0.0).to(tl.float32)
        weight_sums += grad * normal
        bias_sums += grad
        grad *= weight[None, :]
        along = tl.sum(grad * normal, axis=1) / width
        shift = tl.sum(grad, axis=1) / width
        grad_total = (grad - shift[:, None] - normal * along[:, None]) * rstd[:, None]
        if HAS_RESIDUAL or not HAS_DROPOUT:
            tl.store(grad_total_ptr + places, grad_total.to(grad_total_ptr.dtype.element_ty), mask=inside)
        if HAS_DROPOUT:
            grad_hidden = grad_total * factor
            tl.store(grad_hidden_ptr + places, grad_hidden.to(grad_hidden_ptr.dtype.element_ty), mask=inside)
    own = partial_ptr + program * width + columns
    tl.store(own, tl.sum(weight_sums, axis=0), mask=columns < width)
    tl.store(own + programs * width, tl.sum(bias_sums, axis=0), mask=columns < width)
