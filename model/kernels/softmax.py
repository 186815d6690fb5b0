"""Scale + mask + softmax + dropout over attention scores as one operation, for the padded `softmax` attention.

Shapes: S sequences, A heads, L the longest sequence.
"""

import torch
from torch import Tensor

from model.kernels.dropout import dropout


def scaled_masked_softmax(
    scores: Tensor, key_mask: Tensor | None, scale: float, probability: float = 0.0, kernel: str = "torch"
) -> Tensor:
    """dropout(softmax(scale * scores)) over keys, zero where `key_mask` is false.

    scores (S, A, L, L), key_mask (S, 1, 1, L) or None. Computed in fp32 at least, returned in the dtype of `scores`.
    Every row must have a key that is not masked (a sequence always has its [CLS]).
    """
    if kernel == "triton":
        from model.kernels.triton_kernels import softmax  # Triton is not everywhere

        return softmax.scaled_masked_softmax(scores, key_mask, scale, probability)
    # native: here
    return softmax_reference(scores, key_mask, scale, probability)


def softmax_reference(scores: Tensor, key_mask: Tensor | None, scale: float, probability: float = 0.0) -> Tensor:
    """By torch's own operations."""
    scaled = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if key_mask is not None:
        scaled = scaled.masked_fill(~key_mask, float("-inf"))
    return dropout(torch.softmax(scaled, dim=-1).to(scores.dtype), probability, training=True)
