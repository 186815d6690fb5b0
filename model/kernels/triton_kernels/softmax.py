"""dropout(softmax(scale * scores)) over unmasked keys, forward and backward.

Backward computes the weights again from the scores, in fp32: per score 4 bytes move in forward and 6 in backward, and
nothing is kept but the scores. A row is held whole.

Shapes: S sequences, A heads, L keys and queries; a row is the L scores of one query, S * A * L rows.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.philox import draw_seed_on, drop_below
from model.kernels.triton_kernels.bits import keep_tile, rows_are_grouped, seed_or_placeholder

ELEMENTS_OF_TILE = 2048


def scaled_masked_softmax(scores: Tensor, key_mask: Tensor | None, scale: float, probability: float) -> Tensor:
    """scores (S, A, L, L), key_mask (S, 1, 1, L) true at real keys or None -> (S, A, L, L)."""
    seed = draw_seed_on(scores.device) if probability > 0.0 else None
    return _Softmax.apply(scores, key_mask, scale, probability, seed)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, key_mask: Tensor | None, scale: float, probability: float, seed: Tensor | None
    ) -> Tensor:
        scores = scores.contiguous()
        mask = None if key_mask is None else key_mask.reshape(-1, key_mask.shape[-1]).contiguous()  # (S, L)
        ctx.options = {"scale": scale, "drop_below": drop_below(probability), "keep_scale": 1.0 / (1.0 - probability)}
        out = torch.empty_like(scores)
        _launch(_forward, (scores, out), mask, seed, ctx.options)
        ctx.save_for_backward(scores, mask, seed)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        scores, mask, seed = ctx.saved_tensors
        grad_scores = torch.empty_like(scores)
        _launch(_backward, (scores, grad_out.contiguous(), grad_scores), mask, seed, ctx.options)
        return grad_scores, None, None, None, None


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], mask: Tensor | None, seed: Tensor | None, options: dict[str, Any]
) -> None:
    scores = tensors[0]
    width = scores.shape[-1]
    num_rows = scores.numel() // width
    block = max(8, triton.next_power_of_2(width))
    rows = max(1, ELEMENTS_OF_TILE // block)
    kernel[(triton.cdiv(num_rows, rows),)](
        *tensors,
        scores if mask is None else mask,
        seed_or_placeholder(seed, scores),
        num_rows=num_rows,
        width=width,
        rows_of_sequence=num_rows // scores.shape[0],
        **options,
        HAS_MASK=mask is not None,
        HAS_DROPOUT=seed is not None,
        GROUPED=rows_are_grouped(width),
        ROWS=rows,
        BLOCK=block,
        num_warps=4 if block <= 2048 else 8,
    )


@triton.jit
def _weights(
    scores_ptr, mask_ptr, seed_ptr, rows, inside, width, rows_of_sequence, scale, drop_below, keep_scale,
    HAS_MASK: tl.constexpr, HAS_DROPOUT: tl.constexpr, GROUPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """softmax(scale * scores) of a tile, zero outside, and what dropout multiplies by."""
    starts = rows.to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    places = starts[:, None] + columns[None, :]
    scores = tl.load(scores_ptr + places, mask=inside, other=0.0).to(tl.float32) * scale
    present = inside
    if HAS_MASK:
        of_sequence = (rows // rows_of_sequence)[:, None] * width + columns[None, :]
        present = inside & (tl.load(mask_ptr + of_sequence, mask=inside, other=0) != 0)
    scores = tl.where(present, scores, -3.0e38)  # finite: rows past the last have no key at all
    exponential = tl.where(present, tl.exp(scores - tl.max(scores, axis=1)[:, None]), 0.0)
    weights = exponential * (1.0 / tl.maximum(tl.sum(exponential, axis=1), 1.0e-37))[:, None]
    factor = 1.0
    if HAS_DROPOUT:
        keep = keep_tile(tl.load(seed_ptr), starts, drop_below, BLOCK, GROUPED)
        factor = tl.where(keep, keep_scale, 0.0)
    return weights, factor, places


@triton.jit
def _forward(
    scores_ptr, out_ptr, mask_ptr, seed_ptr, num_rows, width, rows_of_sequence, scale, drop_below, keep_scale,
    HAS_MASK: tl.constexpr, HAS_DROPOUT: tl.constexpr, GROUPED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < num_rows)[:, None] & (tl.arange(0, BLOCK) < width)[None, :]
    weights, factor, places = _weights(
        scores_ptr, mask_ptr, seed_ptr, rows, inside, width, rows_of_sequence, scale, drop_below, keep_scale,
        HAS_MASK, HAS_DROPOUT, GROUPED, BLOCK,
    )  # fmt: skip
    tl.store(out_ptr + places, (weights * factor).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    scores_ptr, grad_out_ptr, grad_scores_ptr, mask_ptr, seed_ptr, num_rows, width, rows_of_sequence, scale, drop_below,
    keep_scale, HAS_MASK: tl.constexpr, HAS_DROPOUT: tl.constexpr, GROUPED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < num_rows)[:, None] & (tl.arange(0, BLOCK) < width)[None, :]
    weights, factor, places = _weights(
        scores_ptr, mask_ptr, seed_ptr, rows, inside, width, rows_of_sequence, scale, drop_below, keep_scale,
        HAS_MASK, HAS_DROPOUT, GROUPED, BLOCK,
    )  # fmt: skip
    grad = tl.load(grad_out_ptr + places, mask=inside, other=0.0).to(tl.float32) * factor
    expected = tl.sum(grad * weights, axis=1)
    grad_scores = weights * (grad - expected[:, None]) * scale
    tl.store(grad_scores_ptr + places, grad_scores.to(grad_scores_ptr.dtype.element_ty), mask=inside)
