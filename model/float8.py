"""Linear layers of a frozen model in 8-bit floating point (e4m3: 4 bits of exponent, 3 of mantissa, at most 448).

    y = (x / a) (W / b)^T * a * b + bias      a (T, 1) and b (1, out): a scale for each token and each output

The scales bring the largest magnitude of every row to 448. Those of the weights are found once; those of the activations
in every call, on the device. Products are added up in fp32.
"""

import dataclasses

import torch
from torch import Tensor, nn

from model.bert import MaskedLanguageModel

E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max
MULTIPLE = 16
"""Widths that the matrix units take in 8 bit."""


class Float8Linear(nn.Module):
    """A frozen `nn.Linear`, its weight in 8 bit; results in the dtype of its input (bf16 on CUDA, which scales per row only
    for that)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _quantise(linear.weight.detach())
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale.T)  # (1, out)
        self.register_buffer("bias", linear.bias.detach())

    def forward(self, tokens: Tensor) -> Tensor:  # (T, in) -> (T, out)
        quantised, scale = _quantise(tokens)
        return torch._scaled_mm(
            quantised, self.weight.T, scale_a=scale, scale_b=self.scale, bias=self.bias, out_dtype=tokens.dtype
        )


def _quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, k) -> e4m3 (n, k) and scales (n, 1) in fp32, whose product is about `rows`."""
    scale = rows.abs().amax(dim=-1, keepdim=True).float().clamp_min(1e-12) / E4M3_MAX
    return (rows / scale).to(torch.float8_e4m3fn), scale


def use_float8(model: MaskedLanguageModel) -> None:
    """The linear maps of all encoder layers, in place. Embeddings, norms, attention and the head stay as they are.

    Raises:
        ValueError: a width that cannot be done.
    """
    widths = (model.config.hidden_size, model.config.intermediate_size)
    if any(width % MULTIPLE for width in widths):
        raise ValueError(
            f"--teacher_dtype fp8 needs widths that are multiples of {MULTIPLE}, this teacher has {widths[0]} and "
            f"{widths[1]}: use --teacher_dtype auto"
        )
    for layer in model.encoder.layers:
        layer.kernels = dataclasses.replace(layer.kernels, linear="torch", activation="torch")
        for name, part in list(layer.named_children()):
            if isinstance(part, nn.Linear):
                setattr(layer, name, Float8Linear(part))
