"""The fused bias and GELU against float64."""

import pytest
import torch
import torch.nn.functional as F

from model.kernels.activation import linear_gelu
from model.kernels.triton_kernels import activation
from model.kernels.triton_kernels.activation import bias_gelu
from tests.model.helpers import DEVICE, relative_error

ROUNDING = {torch.float32: 5e-7, torch.bfloat16: 3e-3, torch.float16: 4e-4}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("rows", "width"), [(37, 40), (1, 7), (8, 512)])
def test_outputs_and_gradients(rows: int, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "BLOCK", 32)  # several blocks of columns, the last one not full
    generator = torch.Generator().manual_seed(rows)
    inner, bias, grad_out = (
        (torch.randn(*shape, generator=generator) * 2).to(DEVICE, dtype)
        for shape in ((rows, width), (width,), (rows, width))
    )
    inner[0, 0] = 30.0  # far out, where the density underflows
    leaves = [t.double().requires_grad_() for t in (inner, bias)]
    want = F.gelu(leaves[0] + leaves[1])
    want.backward(grad_out.double())
    got = bias_gelu(inner.requires_grad_(), bias.requires_grad_())
    got.backward(grad_out)
    assert relative_error(got, want) <= ROUNDING[dtype]
    for own, leaf in zip((inner, bias), leaves, strict=True):
        assert own.grad is not None
        assert leaf.grad is not None
        assert own.grad.dtype == dtype
        assert relative_error(own.grad, leaf.grad) <= ROUNDING[dtype]


def test_a_linear_map_with_gelu_takes_either_kernel() -> None:
    torch.manual_seed(0)
    linear, hidden = torch.nn.Linear(16, 24).to(DEVICE), torch.randn(2, 5, 16, device=DEVICE)
    torch.testing.assert_close(linear_gelu(hidden, linear, "triton"), linear_gelu(hidden, linear), rtol=1e-5, atol=1e-6)
