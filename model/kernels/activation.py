"""bias + GELU (the exact one, by erf, as BERT has it) as one operation; backward gives the bias's gradient in the same pass.

Shapes: T rows, H and F widths.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.kernels.linear import linear
from model.kernels.native.linear import FEWEST_ROWS, native_feed_forward, native_linear


def linear_gelu(hidden: Tensor, module: nn.Linear, kernel: str = "torch") -> Tensor:
    """gelu(module(hidden)): (T, H) -> (T, F). Plain torch adds the bias in the matrix product's last step."""
    if kernel == "native" and hidden.shape[0] >= FEWEST_ROWS:
        return native_linear(hidden, module.weight, module.bias, has_gelu=True)
    if kernel in ("torch", "native"):
        return F.gelu(module(hidden))
    return bias_gelu(F.linear(hidden, module.weight), module.bias, kernel)


def feed_forward(hidden: Tensor, inner: nn.Linear, outer: nn.Linear, activation: str, kernel: str) -> Tensor:
    """outer(gelu(inner(hidden))): (T, H) -> (T, H), by the kernels for the activation and for linear layers."""
    if activation == kernel == "native" and hidden.shape[0] >= FEWEST_ROWS:
        return native_feed_forward(hidden, inner.weight, inner.bias, outer.weight, outer.bias)
    return linear(linear_gelu(hidden, inner, activation), outer, kernel)


def bias_gelu(inner: Tensor, bias: Tensor, kernel: str) -> Tensor:
    """gelu(inner + bias): (T, F), (F,) -> (T, F)."""
    if kernel == "triton":
        from model.kernels.triton_kernels import activation  # Triton is not everywhere

        return activation.bias_gelu(inner, bias)
    return bias_gelu_reference(inner, bias)


def bias_gelu_reference(inner: Tensor, bias: Tensor) -> Tensor:
    """By torch's own operations."""
    return F.gelu(inner + bias)
