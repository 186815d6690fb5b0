"""The fused layer norm against float64, with the reference's own dropout mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.layer_norm import FusedLayerNorm
from model.kernels.philox import draw_seed_on, philox_keep_mask
from tests.model.helpers import DEVICE, relative_error

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def make_inputs(rows: int, width: int, dtype: torch.dtype, has_residual: bool = True) -> list[Tensor | None]:
    """hidden, residual, weight, bias: activations of a few units off centre, as a trained layer has them."""
    generator = torch.Generator().manual_seed(rows + width)

    def draw(*shape: int, std: float, mean: float = 0.0) -> Tensor:
        values = torch.randn(*shape, generator=generator) * std + mean
        return values.to(dtype).to(DEVICE).requires_grad_()

    residual = draw(rows, width, std=1.0, mean=0.5) if has_residual else None
    return [draw(rows, width, std=2.0), residual, draw(width, std=0.3, mean=1.0), draw(width, std=0.2)]


def fused(inputs: list[Tensor | None], probability: float, seed: int) -> Tensor:
    hidden, residual, weight, bias = inputs
    assert hidden is not None
    norm = FusedLayerNorm(hidden.shape[-1], 1e-12, "triton")
    norm.weight, norm.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    torch.manual_seed(seed)
    out = norm(hidden, residual, probability)
    inputs[2:] = [norm.weight, norm.bias]
    return out


def expected(
    inputs: list[Tensor | None], keep: Tensor | None, probability: float
) -> tuple[Tensor, list[Tensor | None]]:
    """Output and leaves in float64."""
    leaves = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    hidden, residual, weight, bias = leaves
    assert hidden is not None
    total = hidden if keep is None else hidden * keep / (1.0 - probability)
    total = total if residual is None else total + residual
    return F.layer_norm(total, (hidden.shape[-1],), weight, bias, 1e-12), leaves


@pytest.mark.parametrize(
    ("rows", "width", "dtype", "probability", "has_residual"),
    [
        (13, 768, torch.float32, 0.1, True),
        (13, 768, torch.bfloat16, 0.1, True),
        (13, 768, torch.float16, 0.0, True),
        (7, 100, torch.float32, 0.5, True),  # rows that cut a group of eight bits
        (70, 24, torch.bfloat16, 0.1, True),  # several rows a tile, the last tile not full
        (5, 33, torch.float32, 0.0, False),
        (9, 64, torch.float32, 0.3, False),
        (1, 8, torch.float32, 0.1, True),
    ],
)
def test_outputs_and_gradients(
    rows: int, width: int, dtype: torch.dtype, probability: float, has_residual: bool
) -> None:
    inputs = make_inputs(rows, width, dtype, has_residual)
    keep = None
    if probability:
        torch.manual_seed(5)
        keep = philox_keep_mask((rows, width), probability, int(draw_seed_on(DEVICE).item()), DEVICE)
    want, leaves = expected(inputs, keep, probability)
    got = fused(inputs, probability, seed=5)
    grad_out = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)).to(DEVICE).to(dtype)
    got.backward(grad_out)
    want.backward(grad_out.double())
    bound = ROUNDING[dtype]
    assert relative_error(got, want) <= bound
    for own, leaf in zip(inputs, leaves, strict=True):
        if own is not None and leaf is not None:
            assert own.grad is not None
            assert own.grad.dtype == dtype
            assert relative_error(own.grad, leaf.grad) <= bound


@pytest.mark.parametrize("width", [64, 100])
def test_the_mask_is_the_references_bit_for_bit(width: int) -> None:
    """Dropped elements are those whose gradient is exactly zero."""
    hidden, residual, weight, bias = make_inputs(11, width, torch.float32)
    inputs = [hidden, residual, weight, bias]
    fused(inputs, 0.3, seed=9).square().sum().backward()
    torch.manual_seed(9)
    keep = philox_keep_mask((11, width), 0.3, int(draw_seed_on(DEVICE).item()), DEVICE)
    assert hidden is not None
    assert hidden.grad is not None
    assert torch.equal(hidden.grad != 0, keep)


def test_no_dropout_in_evaluation() -> None:
    norm = FusedLayerNorm(64, 1e-12, "triton").to(DEVICE).eval()
    hidden = torch.randn(5, 64, device=DEVICE)
    torch.testing.assert_close(norm(hidden, hidden, 0.5), F.layer_norm(2 * hidden, (64,)), rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_bits() -> None:
    results = []
    for _ in range(2):
        inputs = make_inputs(50, 64, torch.bfloat16)
        out = fused(inputs, 0.1, seed=3)
        out.sum().backward()
        results.append([out, *(t.grad for t in inputs if t is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
