"""Compiled layers compute what plain ones do, and are compiled a bounded number of times."""

import pytest
import torch
from torch._dynamo.utils import counters

from model.compiled import check_compiler, compile_layers
from model.config import EncoderConfig
from model.kernels.choice import Kernels
from model.student import make_random

CPU = torch.device("cpu")
LENGTHS = ([5, 7, 9], [12, 12], [3, 30, 4, 8], [40], [9, 9, 9, 9], [64, 64, 3])


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    token_ids = torch.randint(100, (int(bounds[-1]),), generator=torch.Generator().manual_seed(0))
    return token_ids, torch.cat([torch.arange(length) for length in lengths]), bounds, max(lengths)


@pytest.mark.slow  # compiles
def test_layers_compiled_in_place_give_the_same_gradients_for_every_number_of_tokens() -> None:
    """Dropout is on: its bits come from torch's generator in the same order, compiled or not."""
    shape = EncoderConfig(
        vocab_size=100, hidden_size=32, num_layers=10, num_heads=2, intermediate_size=64, max_positions=64
    )
    plain, compiled = (make_random(shape, kernels=Kernels(attention="blocked"), seed=1) for _ in range(2))
    compile_layers(compiled, CPU)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    counters.clear()  # other tests of the process compile too
    graphs = []
    for lengths in LENGTHS:
        for model in (plain, compiled):
            torch.manual_seed(3)
            model.zero_grad()
            model(*batch(lengths)).features.square().mean().backward()
        for (name, expected), got in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            if expected.grad is not None:
                torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-6, msg=name)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] <= 8  # around attention and in the two norms, at their dropout, for all ten layers
    assert graphs == [graphs[0]] * len(LENGTHS)


def test_a_machine_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler(CPU)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler"):
        check_compiler(CPU)
