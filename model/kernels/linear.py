"""The linear layers of the encoder: torch's own, or our C++ where it is faster."""

from torch import Tensor, nn

from model.kernels.native.linear import FEWEST_ROWS, native_linear


def linear(hidden: Tensor, module: nn.Linear, kernel: str = "torch") -> Tensor:
    """(T, K) -> (T, N)."""
    if kernel == "native" and hidden.shape[0] >= FEWEST_ROWS:
        return native_linear(hidden, module.weight, module.bias)
    return module(hidden)
