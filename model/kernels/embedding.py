"""The word embedding, tied: the same matrix looks words up at one end of the model and projects onto them at the other.

Shapes: T tokens, H width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def tied_embedding(token_ids: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(T,), (V, H) -> the rows of the tokens (T, H) and the matrix for the projection, (V, H).

    On a CPU both gradients meet here, and the few rows that were looked up are added to the projection's gradient in place,
    in fp32 for a word that occurs often: autograd would make a second (V, H) gradient and add the two.
    """
    if token_ids.device.type != "cpu":
        return F.embedding(token_ids, weight), weight.view_as(weight)
    return _TiedEmbedding.apply(weight, token_ids)


class _TiedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(token_ids)
        return F.embedding(token_ids, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_weight: Tensor) -> tuple[Tensor, None]:
        (token_ids,) = ctx.saved_tensors
        words, places = token_ids.unique(return_inverse=True)
        wide = torch.promote_types(grad_rows.dtype, torch.float32)
        sums = grad_rows.new_zeros((words.shape[0], grad_rows.shape[1]), dtype=wide)
        sums.index_add_(0, places, grad_rows.to(wide))
        grad_weight = grad_weight.contiguous()  # fresh from the vocabulary loss, its one consumer: it may be written to
        grad_weight[words] = (grad_weight[words].to(wide) + sums).to(grad_weight.dtype)
        return grad_weight, None
