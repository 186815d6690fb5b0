"""The fused softmax against float64, with the reference's own dropout mask."""

import pytest
import torch
from torch import Tensor

from model.kernels.philox import draw_seed_on, philox_keep_mask
from model.kernels.softmax import scaled_masked_softmax
from tests.model.helpers import DEVICE, relative_error

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}


def mask_of(lengths: tuple[int, ...], longest: int) -> Tensor:
    """(S, 1, 1, L)"""
    return (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None, :].to(DEVICE)


@pytest.mark.parametrize(
    ("longest", "lengths", "dtype", "probability"),
    [
        (24, (24, 7, 1), torch.float32, 0.1),
        (24, (24, 7), torch.bfloat16, 0.1),
        (16, (16, 3), torch.float16, 0.0),
        (13, (13, 5), torch.float32, 0.3),  # rows that cut a group of eight bits
        (9, (), torch.float32, 0.1),  # no mask
        (512, (512,), torch.bfloat16, 0.1),
    ],
)
def test_outputs_and_gradients(longest: int, lengths: tuple[int, ...], dtype: torch.dtype, probability: float) -> None:
    generator = torch.Generator().manual_seed(longest)
    num_queries = min(longest, 24)  # the rows need not be square for the test, and an interpreter is slow
    shape = (max(1, len(lengths)), 2, num_queries, longest)
    scores, grad_out = ((torch.randn(shape, generator=generator) * 20).to(DEVICE, dtype) for _ in range(2))
    key_mask = mask_of(lengths, longest) if lengths else None
    leaf = scores.double().requires_grad_()
    scaled = leaf * 0.125
    if key_mask is not None:
        scaled = scaled.masked_fill(~key_mask, float("-inf"))
    want = torch.softmax(scaled, -1)
    if probability:
        torch.manual_seed(4)
        keep = philox_keep_mask(shape, probability, int(draw_seed_on(DEVICE).item()), DEVICE)
        want = want * keep / (1.0 - probability)
    want.backward(grad_out.double())
    torch.manual_seed(4)
    got = scaled_masked_softmax(scores.requires_grad_(), key_mask, 0.125, probability, "triton")
    got.backward(grad_out)
    assert got.dtype == dtype
    assert torch.equal(got == 0, want.to(dtype) == 0)  # masks and dropout, bit for bit
    assert relative_error(got, want) <= ROUNDING[dtype]
    assert scores.grad is not None
    assert leaf.grad is not None
    assert relative_error(scores.grad, leaf.grad) <= ROUNDING[dtype]
