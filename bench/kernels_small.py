"""Layer norm, bias + GELU and softmax of `bench.kernels`: inputs and implementations.

Shapes: T tokens, H and F widths, S sequences of length L, A heads.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kernels_cases import Case
from model.kernels.activation import bias_gelu
from model.kernels.choice import runnable
from model.kernels.layer_norm import FusedLayerNorm
from model.kernels.softmax import scaled_masked_softmax

DROPOUT, EPS, SCALE = 0.1, 1e-12, 0.125

NAMES = {"torch": "ours, torch", "eager": "plain torch", "compile": "plain torch through torch.compile"}

Operation = Callable[[Sequence[Tensor]], Tensor]


def implementations(operation: str, device: torch.device) -> list[str]:
    """Everything that runs here, plain torch first."""
    fused = runnable(operation, device, torch.bfloat16)
    return ["eager", "compile", *(["torch"] if device.type == "cpu" else []), *fused]  # on CUDA ours is plain torch


def make_inputs(case: Case, device: torch.device) -> list[Tensor]:
    """bf16 leaves, and the mask of the softmax."""
    shape = case.shape
    shapes: dict[str, list[tuple[int, ...]]] = {
        "layer_norm": [(case.tokens, shape.hidden)] * 2 + [(shape.hidden,)] * 2,
        "activation": [(case.tokens, shape.inner), (shape.inner,)],
        "softmax": [(case.tokens // shape.length, shape.heads, shape.length, shape.length)],
    }
    inputs = [
        torch.randn(each, device=device, dtype=torch.bfloat16).requires_grad_() for each in shapes[case.operation]
    ]
    if case.operation == "softmax":
        lengths = torch.full((case.tokens // shape.length, 1), shape.length - shape.length // 8)
        mask = torch.arange(shape.length) < lengths
        inputs.append(mask[:, None, None, :].to(device))
    return inputs


def function_of(case: Case, device: torch.device) -> Operation:
    plain: dict[str, Operation] = {"layer_norm": _layer_norm, "activation": _activation, "softmax": _softmax}
    if case.implementation == "eager":
        return plain[case.operation]
    if case.implementation == "compile":
        return torch.compile(plain[case.operation])
    kernel = case.implementation
    if case.operation == "activation":
        return lambda inputs: bias_gelu(inputs[0], inputs[1], kernel)
    if case.operation == "softmax":
        return lambda inputs: scaled_masked_softmax(inputs[0], inputs[1], SCALE, DROPOUT, kernel)
    norm = FusedLayerNorm(case.shape.hidden, EPS, kernel).to(device)

    def run(inputs: Sequence[Tensor]) -> Tensor:
        norm._parameters.update(weight=inputs[2], bias=inputs[3])
        return norm(inputs[0], inputs[1], DROPOUT)

    return run


def _layer_norm(inputs: Sequence[Tensor]) -> Tensor:
    hidden, residual, weight, bias = inputs
    return F.layer_norm(residual + F.dropout(hidden, DROPOUT), weight.shape, weight, bias, EPS)


def _activation(inputs: Sequence[Tensor]) -> Tensor:
    return F.gelu(inputs[0] + inputs[1])


def _softmax(inputs: Sequence[Tensor]) -> Tensor:
    scores, key_mask = inputs
    scaled = (scores.float() * SCALE).masked_fill(~key_mask, float("-inf"))
    return F.dropout(torch.softmax(scaled, dim=-1).to(scores.dtype), DROPOUT)
