"""bias + GELU (the exact one, by erf, as BERT has it) as one operation; backward gives the bias's gradient in the same pass.

Shapes: T rows, H and F widths.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.kernels.native.linear import FEWEST_ROWS, native_linear


def linear_gelu(hidden: Tensor, linear: nn.Linear, kernel: str = "torch") -> Tensor:
    """gelu(linear(hidden)): (T, H) -> (T, F). Plain torch adds the bias in the matrix product's last step."""
    if kernel == "native" and hidden.shape[0] >= FEWEST_ROWS:
        return native_linear(hidden, linear.weight, linear.bias, has_gelu=True)
    if kernel in ("torch", "native"):
        return F.gelu(linear(hidden))
    return bias_gelu(F.linear(hidden, linear.weight), linear.bias, kernel)


def bias_gelu(inner: Tensor, bias: Tensor, kernel: str) -> Tensor:
    """gelu(inner + bias): (T, F), (F,) -> (T, F)."""
    if kernel == "triton":
        from model.kernels.triton_kernels import activation  # Triton is not everywhere

        return activation.bias_gelu(inner, bias)
    return bias_gelu_reference(inner, bias)


def bias_gelu_reference(inner: Tensor, bias: Tensor) -> Tensor:
    """By torch's own operations."""
    return F.gelu(inner + bias)
