"""FusedLayerNorm: norm(residual + dropout(hidden)) as one operation, the way a post-norm layer ends.

Shapes: T rows, H width.
"""

from collections.abc import Callable

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
        run = _implementation(self.kernel)
        return run(hidden, residual, self.weight, self.bias, self.eps, probability)


def _implementation(kernel: str) -> Callable[..., Tensor]:
    """Imported when asked for: none of them runs everywhere. All take the arguments of `layer_norm_reference`."""
    if kernel == "triton":
        from model.kernels.triton_kernels.layer_norm import layer_norm

        return layer_norm
    if kernel == "apex":
        return _layer_norm_apex
    if kernel == "native":
        return native_layer_norm
    return layer_norm_reference


def layer_norm_reference(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, probability: float
) -> Tensor:
    """By torch's own operations; statistics in fp32 at least."""
    return F.layer_norm(_pre_norm(hidden, residual, probability), weight.shape, weight, bias, eps)


def _layer_norm_apex(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, probability: float
) -> Tensor:
    from apex.normalization.fused_layer_norm import fused_layer_norm_affine

    return fused_layer_norm_affine(_pre_norm(hidden, residual, probability), weight, bias, tuple(weight.shape), eps)


def _pre_norm(hidden: Tensor, residual: Tensor | None, probability: float) -> Tensor:
    dropped = dropout(hidden, probability, training=True)
    return dropped if residual is None else residual + dropped
