"""Which implementation of every fused operation runs, and why.

`native` is our C++ for CPUs, `triton` our kernels for GPUs, `apex` NVIDIA's, `torch` the plain operations.
"""

from dataclasses import dataclass

import torch

from model.attention import choose_attention
from model.kernels.native.library import obstacle as native_obstacle


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The implementation of each operation of a model, by name; the defaults run anywhere."""

    attention: str = "sdpa"
    linear: str = "torch"
    layer_norm: str = "torch"
    activation: str = "torch"
    softmax: str = "torch"
    vocab_loss: str = "torch"


def choose_kernels(
    wanted: str, wanted_attention: str, device: torch.device, dtype: torch.dtype, dropout: float
) -> tuple[Kernels, str]:
    """The kernels to run and the reason, for the line printed at the start.

    Raises:
        ValueError: an implementation was asked for by name where it cannot run.
    """
    attention, why = choose_attention(wanted_attention, device, dtype, dropout)
    if wanted in ("auto", "native") and device.type == "cpu" and dtype == torch.bfloat16 and not native_obstacle():
        return Kernels(
            attention="native", linear="native", layer_norm="native", activation="native", vocab_loss="native"
        ), "native kernels"
    return Kernels(attention=attention), f"attention {attention} ({why})"
