"""A plain model for one input at a time, as phones run it: in operations that XNNPACK takes all of.

XNNPACK reshapes only where a single dimension is inferred, which leaves none for a batch.
Shapes: L tokens, A heads, D width of a head.
"""

import copy

import torch
from torch import Tensor, nn

from exporting.plain import PlainModel

MASKED = 1e9
"""Taken from a score to mask it; softmax makes it exactly 0."""


class SingleInput(nn.Module):
    """A copy of a plain model for one input at a time."""

    def __init__(self, plain: PlainModel) -> None:
        super().__init__()
        both = copy.deepcopy(nn.ModuleDict({"encoder": plain.encoder, "head": plain.head}))  # together: one is tied
        self.encoder, self.head = both["encoder"], both["head"]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:  # (1, L) each
        penalty = (attention_mask[:, None] - 1).to(torch.float32) * MASKED  # (1, 1, L): once for all layers
        return self.head(self.encoder(input_ids, penalty, token_type_ids, single_attention))


def single_attention(query: Tensor, key: Tensor, value: Tensor, penalty: Tensor, num_heads: int) -> Tensor:
    """`exporting.plain.Attention` of one input, (1, L, A * D); the mask is a number to add to scores."""
    width = query.shape[-1] // num_heads
    q = (query * width**-0.5).reshape(-1, num_heads, width).transpose(0, 1)  # (A, L, D)
    k = key.reshape(-1, num_heads, width).permute(1, 2, 0)  # (A, D, L)
    v = value.reshape(-1, num_heads, width).transpose(0, 1)
    mixed = torch.bmm(torch.softmax(torch.bmm(q, k) + penalty, dim=-1), v)
    return mixed.transpose(0, 1).contiguous().view(1, -1, num_heads * width)
