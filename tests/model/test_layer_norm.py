"""The layer norm's implementations behind one name; the fused ones have tests of their own."""

import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.layer_norm import FusedLayerNorm


def test_apex_gets_the_sum_and_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signature of NVIDIA's function, whose own default of eps is another."""

    def fused_layer_norm_affine(
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        normalized_shape: tuple[int, ...],
        eps: float = 1e-6,
        memory_efficient: bool = False,
    ) -> Tensor:
        return F.layer_norm(values, normalized_shape, weight, bias, eps)

    module = ModuleType("apex.normalization.fused_layer_norm")
    module.fused_layer_norm_affine = fused_layer_norm_affine  # type: ignore[attr-defined]
    for name in ("apex", "apex.normalization"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    plain, apex = (FusedLayerNorm(8, 0.5, kernel) for kernel in ("torch", "apex"))
    torch.nn.init.normal_(plain.weight)
    apex.load_state_dict(plain.state_dict())
    hidden, residual = torch.randn(2, 3, 8)
    assert torch.equal(apex(hidden, residual), plain(hidden, residual))
