"""Packed attention for CPUs: a few sequences of one length at a time, so that the scores stay in cache.

Nothing is padded, and nothing of size L x L outlives its block: backward computes the weights again from query and key,
and the dropout mask again from its seed, as flash attention does (Dao et al. 2022).

Shapes: T real tokens, A heads, D head width; in a block G sequences of length L.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.kernels.dropout import drop, keep_mask

BLOCK_SCORES = 1 << 22
"""Scores of a block: 8 MB in bf16, about the share of the last-level cache that two cores have."""


def blocked_attention(qkv: Tensor, cu_seqlens: Tensor, dropout: float) -> Tensor:
    """Multi-head attention within each sequence: qkv (T, 3, A, D), cu_seqlens (S+1,) on the CPU -> (T, A * D).

    The dropout mask depends only on torch's default generator at the call.
    """
    seed = int(torch.randint(2**62, ()).item()) if dropout > 0.0 else 0
    return _BlockedAttention.apply(qkv, cu_seqlens, dropout, seed)


class _Block(NamedTuple):
    tokens: slice
    num_sequences: int
    length: int


def _blocks(cu_seqlens: Tensor, num_heads: int) -> Iterator[_Block]:
    """Runs of neighbours of the same length, as long as a block may be."""
    bounds = cu_seqlens.tolist()
    first = 0
    while first < len(bounds) - 1:
        length = bounds[first + 1] - bounds[first]
        most = max(1, BLOCK_SCORES // (num_heads * length * length))
        last = first + 1
        while last < len(bounds) - 1 and last - first < most and bounds[last + 1] - bounds[last] == length:
            last += 1
        yield _Block(slice(bounds[first], bounds[last]), last - first, length)
        first = last


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cu_seqlens: Tensor, dropout: float, seed: int) -> Tensor:
        out = torch.empty_like(qkv[:, 0]).flatten(1)  # (T, A * D)
        mask = _DropoutMask(dropout, seed)
        for block in _blocks(cu_seqlens, qkv.shape[2]):
            query, key, value = _heads(qkv, block)
            weights = mask.apply(_weights(query, key), mask.draw(block, qkv.shape[2]))
            _write(out, weights @ value, block)
        ctx.save_for_backward(qkv, cu_seqlens)
        ctx.dropout, ctx.seed = dropout, seed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, cu_seqlens = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        mask = _DropoutMask(ctx.dropout, ctx.seed)
        for block in _blocks(cu_seqlens, qkv.shape[2]):
            query, key, value = _heads(qkv, block)
            grad = grad_out[block.tokens].view(block.num_sequences, block.length, *qkv.shape[2:]).transpose(1, 2)
            keep = mask.draw(block, qkv.shape[2])
            weights = _weights(query, key)  # (G, A, L, L)
            grad_value = mask.apply(weights, keep).transpose(-1, -2) @ grad
            grad_weights = mask.apply(grad @ value.transpose(-1, -2), keep)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            scale = qkv.shape[-1] ** -0.5
            target = grad_qkv[block.tokens].view(block.num_sequences, block.length, 3, *qkv.shape[2:])
            target[:, :, 0] = (grad_scores @ key).mul_(scale).transpose(1, 2)
            target[:, :, 1] = (grad_scores.transpose(-1, -2) @ query).mul_(scale).transpose(1, 2)
            target[:, :, 2] = grad_value.transpose(1, 2)
        return grad_qkv, None, None, None


class _DropoutMask:
    """Keep masks drawn block after block from one seed."""

    def __init__(self, dropout: float, seed: int) -> None:
        self.dropout = dropout
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, block: _Block, num_heads: int) -> Tensor | None:
        """(G, A, L, L) true where a weight is kept; None without dropout."""
        if self.dropout == 0.0:
            return None
        return keep_mask((block.num_sequences, num_heads, block.length, block.length), self.dropout, self.generator)

    def apply(self, tensor: Tensor, keep: Tensor | None) -> Tensor:
        return tensor if keep is None else drop(tensor, keep, self.dropout)


def _heads(qkv: Tensor, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (G, A, L, D) of a block."""
    num_heads, width = qkv.shape[2:]
    parts = qkv[block.tokens].view(block.num_sequences, block.length, 3, num_heads, width)
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def _weights(query: Tensor, key: Tensor) -> Tensor:
    """Attention weights (G, A, L, L); the scale goes to the smaller factor, softmax is fp32 inside."""
    return torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2), dim=-1)


def _write(out: Tensor, context: Tensor, block: _Block) -> None:
    """context (G, A, L, D) into the rows of `out` (T, A * D) that the block holds."""
    num_heads, width = context.shape[1], context.shape[3]
    out[block.tokens].view(block.num_sequences, block.length, num_heads, width).copy_(context.transpose(1, 2))
