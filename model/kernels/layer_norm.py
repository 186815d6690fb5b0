"""FusedLayerNorm: norm(residual + dropout(hidden)) as one operation, the way a post-norm layer ends.

Shapes: T rows, H width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.kernels.dropout import dropout
from model.kernels.native.layer_norm import native_layer_norm


class FusedLayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension with the residual and its dropout fused in; parameters as nn.LayerNorm's.

    `kernel` names the implementation: torch (plain, the reference), native (C++ for CPUs), triton or apex (CUDA; apex
    fuses the norm alone).
    """

    def __init__(self, width: int, eps: float, kernel: str = "torch") -> None:
        super().__init__(width, eps=eps)
        self.kernel = kernel

    def forward(self, hidden: Tensor, residual: Tensor | None = None, probability: float = 0.0) -> Tensor:
        """(T, H), (T, H) or None -> (T, H). `probability` of dropping an element of `hidden`, in training only."""
        probability = probability if self.training else 0.0
        if self.kernel == "native":
            return native_layer_norm(hidden, residual, self.weight, self.bias, self.eps, probability)
        return layer_norm_reference(hidden, residual, self.weight, self.bias, self.eps, probability)


def layer_norm_reference(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, probability: float
) -> Tensor:
    """By torch's own operations; statistics in fp32 at least."""
    dropped = dropout(hidden, probability, training=True)
    total = dropped if residual is None else residual + dropped
    return F.layer_norm(total, weight.shape, weight, bias, eps)
