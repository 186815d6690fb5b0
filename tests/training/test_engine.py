"""Schedule and parameter groups."""

import itertools

import pytest
import torch
from torch import nn

from training.engine import linear_schedule, parameter_groups


def test_schedule_rises_then_falls_linearly() -> None:
    factor = linear_schedule(100, 0.05)
    values = [factor(update) for update in range(100)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5] == pytest.approx(1.0)
    steps = [a - b for a, b in itertools.pairwise(values[5:])]
    assert steps == pytest.approx([1 / 95] * 94)
    assert values[99] == pytest.approx(1 / 95)
    assert factor(100) == 0.0


@pytest.mark.parametrize(("num_updates", "share"), [(1, 0.0), (1, 1.0), (7, 0.0), (7, 1.0), (3, 0.05)])
def test_schedule_is_a_share_of_the_peak_and_reaches_it(num_updates: int, share: float) -> None:
    values = [linear_schedule(num_updates, share)(update) for update in range(num_updates)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1.0


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    model[0].weight.requires_grad_(True)
    frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    model.register_parameter("frozen", frozen)
    decayed, free = parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert {tuple(p.shape) for p in decayed["params"]} == {(5, 4), (3, 4)}
    assert [tuple(p.shape) for p in free["params"]] == [(3,), (3,), (3,)]
