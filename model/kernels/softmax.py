"""Scale + mask + softmax over attention scores: the plain reference that fused versions are measured against."""

import torch
from torch import Tensor


def scaled_masked_softmax(scores: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    """softmax(scale * scores) over keys, zero where `key_mask` is false.

    scores (S, A, L, L), key_mask (S, 1, 1, L) or None. Computed in fp32 at least, returned in the dtype of `scores`.
    Every row must have a key that is not masked (a sequence always has its [CLS]).
    """
    scaled = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if key_mask is not None:
        scaled = scaled.masked_fill(~key_mask, float("-inf"))
    return torch.softmax(scaled, dim=-1).to(scores.dtype)
