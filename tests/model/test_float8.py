"""The teacher's 8-bit layers against e4m3 spelled out from its bits, in float64."""

from pathlib import Path

import pytest
import torch
from torch import nn

from model.config import EncoderConfig
from model.float8 import Float8Linear, use_float8
from model.hub import load_model
from model.student import make_random
from model.teacher import Teacher, choose_dtype
from tests.model.helpers import bert, packed

CPU = torch.device("cpu")


def e4m3_values() -> torch.Tensor:
    """Every number of the format, ascending: 4 bits of exponent (bias 7), 3 of mantissa, no infinity."""
    subnormal = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    normal = [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    positive = (subnormal + normal)[:-1]  # the last pattern is not a number
    return torch.tensor([-value for value in reversed(positive)] + positive[1:], dtype=torch.float64)


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to 448, each number taken to the nearest of the format, and scaled back."""
    scale = rows.abs().amax(-1, keepdim=True) / 448
    values = e4m3_values()
    return values[((rows / scale)[..., None] - values).abs().argmin(-1)] * scale


def test_linear_equals_the_format_spelled_out() -> None:
    """Magnitudes differ a thousandfold between tokens and between outputs, as they do in a trained BERT."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    linear.weight.data *= torch.logspace(-2, 1, 48)[:, None]
    linear.requires_grad_(False)
    tokens = torch.randn(33, 64) * torch.logspace(-2, 1, 33)[:, None]
    got = Float8Linear(linear)(tokens)
    expected = rounded(tokens.double()) @ rounded(linear.weight.double()).T + linear.bias.double()
    assert ((got - expected).norm(dim=1) / expected.norm(dim=1)).max().item() < 1e-5
    exact = linear(tokens)
    assert 0.005 < ((got - exact).norm() / exact.norm()).item() < 0.06  # a mantissa of 3 bits rounds by up to 1/16


def test_bf16_differs_in_the_rounding_of_its_result_alone() -> None:
    torch.manual_seed(0)
    linear, tokens = nn.Linear(64, 48).bfloat16().requires_grad_(False), torch.randn(33, 64).bfloat16()
    narrow = Float8Linear(linear)(tokens)
    wide = Float8Linear(linear.float())(tokens.float())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, rtol=2**-7, atol=2**-7)


def test_only_the_layers_of_a_teacher_are_in_8_bit(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    exact = Teacher(load_model(tmp_path), torch.float32, CPU)
    teacher = Teacher(load_model(tmp_path), torch.float32, CPU, is_float8=True)
    state, before = teacher.model.state_dict(), exact.model.state_dict()
    in_8_bit = {name for name, value in state.items() if value.dtype == torch.float8_e4m3fn}
    assert in_8_bit == {name for name in before if ".layers." in name and before[name].dim() == 2}
    assert all(torch.equal(state[name], before[name]) for name in before if name not in in_8_bit)
    hidden, expected = teacher(*packed()).hidden, exact(*packed()).hidden
    assert 1e-4 < ((hidden - expected).norm() / expected.norm()).item() < 0.1
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = EncoderConfig(vocab_size=10, hidden_size=24, num_layers=1, num_heads=2, intermediate_size=64)
    with pytest.raises(ValueError, match="multiples of 16, this teacher has 24 and 64"):
        use_float8(make_random(shape, seed=0))
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"8\.9 or newer, this GPU has 8\.0"):
        choose_dtype("fp8", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_dtype("fp8", cuda)[0] == torch.bfloat16
    assert "6 times as long" in choose_dtype("fp8", CPU)[1]
