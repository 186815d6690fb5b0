"""Dropout against its definition, and against torch's own in distribution."""

import pytest
import torch

from model.kernels.dropout import dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1001,), (64, 33)])
def test_share_scale_and_gradient(probability: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tensor = torch.rand(shape, dtype=torch.float64).add(0.5).requires_grad_()
    out = dropout(tensor, probability, True)
    kept = out != 0
    torch.testing.assert_close(out[kept], tensor[kept] / (1 - probability))
    share = 1 - kept.double().mean().item()
    assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / tensor.numel()) ** 0.5)
    out.sum().backward()
    torch.testing.assert_close(tensor.grad, kept.double() / (1 - probability))


def test_elements_are_independent() -> None:
    """Four elements come from one draw: their keeps must not be correlated."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.3, True) != 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max().item() < 5 / 100_000**0.5


def test_identity_in_evaluation_or_without_dropout() -> None:
    tensor = torch.rand(10)
    assert dropout(tensor, 0.5, False) is tensor
    assert dropout(tensor, 0.0, True) is tensor
