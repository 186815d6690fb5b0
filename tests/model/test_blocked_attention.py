"""Blocked attention against attention spelled out per sequence, forward and backward, with and without dropout."""

import pytest
import torch
from torch import Tensor

from model.kernels import blocked_attention as module
from model.kernels.blocked_attention import blocked_attention

LENGTHS = (5, 5, 5, 9, 1, 9, 9)
HEADS, WIDTH = 3, 4
CU_SEQLENS = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)


def make_qkv(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sum(LENGTHS), 3, HEADS, WIDTH, generator=generator, dtype=dtype).requires_grad_()


def spelled_out(qkv: Tensor) -> Tensor:
    outputs = []
    for piece in qkv.split(list(LENGTHS)):
        query, key, value = piece.permute(1, 2, 0, 3)
        weights = torch.softmax(query @ key.transpose(1, 2) / WIDTH**0.5, -1)
        outputs.append((weights @ value).transpose(0, 1).flatten(1))
    return torch.cat(outputs)


@pytest.mark.parametrize("block_scores", [1, 3 * 5 * 5 * 2, 1 << 22], ids=["one", "two", "all"])
def test_equals_attention_spelled_out(block_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_SCORES", block_scores)
    qkv, reference = make_qkv(), make_qkv()
    grad = torch.randn(sum(LENGTHS), HEADS * WIDTH, dtype=torch.float64)
    out, expected = blocked_attention(qkv, CU_SEQLENS, 0.0), spelled_out(reference)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-14)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(qkv.grad, reference.grad, rtol=1e-11, atol=1e-13)


def test_gradient_with_dropout_is_the_derivative_of_the_same_mask() -> None:
    """gradcheck perturbs the input and calls again: it holds only if backward repeats forward's mask."""

    def fixed_mask(qkv: Tensor) -> Tensor:
        torch.manual_seed(3)
        return blocked_attention(qkv, CU_SEQLENS, 0.4)

    assert torch.autograd.gradcheck(fixed_mask, (make_qkv(),))


def test_dropout_keeps_the_expected_value_and_drops_the_right_share() -> None:
    length, heads = 64, 8
    qkv = torch.zeros(length, 3, heads, 64, dtype=torch.float64)
    qkv[:, 2] = torch.eye(length, 64, dtype=torch.float64)[:, None]  # the output is the row of dropped weights itself
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32)
    torch.manual_seed(0)
    weights = blocked_attention(qkv, cu_seqlens, 0.1).view(length, heads, 64) * length
    dropped = (weights == 0).double().mean().item()
    assert dropped == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / weights.numel()) ** 0.5 + 1 / 65536)
    assert weights.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.unique(weights).tolist() == pytest.approx([0.0, 1 / 0.9])
    assert (weights == 0).double().mean(dim=(0, 1)).min() > 0.05  # no column is spared


def test_dropout_follows_the_default_generator() -> None:
    qkv = make_qkv()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(blocked_attention(qkv, CU_SEQLENS, 0.5))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[2], blocked_attention(qkv, CU_SEQLENS, 0.5))


def test_bf16_is_as_near_as_scaled_dot_product_attention() -> None:
    qkv = make_qkv(torch.bfloat16).detach()
    exact = spelled_out(qkv.double())
    ours = (blocked_attention(qkv, CU_SEQLENS, 0.0).double() - exact).norm() / exact.norm()
    assert ours.item() < 5e-3
