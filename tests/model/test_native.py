"""The C++ kernels against plain references in float64; bf16 in and out, so errors are those of one rounding."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.native.attention import native_attention
from model.kernels.native.convert import scale_to_bf16
from model.kernels.native.layer_norm import native_layer_norm
from model.kernels.native.library import obstacle
from model.kernels.native.linear import native_feed_forward, native_linear
from model.kernels.philox import KEY_STEPS, MULTIPLIERS, ROUNDS, draw_seed, drop_below, philox_keep_mask
from tests.launch import ROOT

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

ROUNDING = 2**-8
"""Twice the largest relative error of one rounding to bf16; norms of errors stay well below."""


def normal(*shape: int, seed: int = 0, std: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * std).bfloat16()


def assert_near(got: Tensor, expected: Tensor, bound: float = ROUNDING) -> None:
    assert got.shape == expected.shape
    error = ((got.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
    assert error <= bound, error


def leaves(*tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The same values twice: bf16 and float64, both asking for gradients."""
    return [t.clone().requires_grad_() for t in tensors], [t.double().requires_grad_() for t in tensors]


# 8 and 9: one tile of rows, and one that is computed twice in part; 304 and 96: no whole panels of 48 columns; 2,100:
# three spans of backward; 31,748: a last span that would be less than a tile.
@pytest.mark.parametrize(
    ("rows", "width", "outputs"),
    [(8, 16, 16), (9, 48, 32), (61, 304, 96), (130, 96, 304), (2100, 32, 48), (31748, 16, 16)],
)
@pytest.mark.parametrize("has_gelu", [False, True])
def test_linear(rows: int, width: int, outputs: int, has_gelu: bool) -> None:
    ours, wide = leaves(normal(rows, width), normal(outputs, width, std=width**-0.5), normal(outputs, seed=1))
    grad = normal(rows, outputs, seed=2)
    out = native_linear(ours[0], ours[1], ours[2], has_gelu)
    out.backward(grad)
    expected = F.linear(*wide)
    expected = F.gelu(expected) if has_gelu else expected
    expected.backward(grad.double())
    assert_near(out, expected)
    for mine, reference in zip(ours, wide, strict=True):
        assert_near(mine.grad, reference.grad)


@pytest.mark.parametrize("rows", [9, 1100])
def test_feed_forward(rows: int) -> None:
    weights = (normal(96, 32, std=0.2), normal(96, seed=1), normal(32, 96, std=0.1), normal(32, seed=1))
    ours, wide = leaves(normal(rows, 32), *weights)
    grad = normal(rows, 32, seed=2)
    out = native_feed_forward(*ours)
    out.backward(grad)
    expected = F.linear(F.gelu(F.linear(wide[0], wide[1], wide[2])), wide[3], wide[4])
    expected.backward(grad.double())
    assert_near(out, expected)
    for mine, reference in zip(ours, wide, strict=True):
        assert_near(mine.grad, reference.grad)
    with torch.no_grad():
        assert torch.equal(native_feed_forward(*ours), out)


def test_gelu_keeps_its_tails() -> None:
    """Far below zero GELU is tiny and not zero; far above it is the identity."""
    values = torch.linspace(-9, 9, 4096).bfloat16()
    out = native_linear(F.one_hot(torch.arange(16)).bfloat16(), values.view(256, 16), torch.zeros(256).bfloat16(), True)
    expected = F.gelu(values.double()).view(256, 16).T
    assert (out.double() - expected).abs().max() <= 2**-8 * expected.abs().max()
    small = expected.abs() < 1e-2
    assert (out.double() - expected)[small].abs().max() <= 1e-6 + 2**-8 * 1e-2


@pytest.mark.parametrize(("rows", "width"), [(5, 16), (37, 384), (9, 304)])
@pytest.mark.parametrize("probability", [0.0, 0.1])
@pytest.mark.parametrize("has_residual", [True, False])
def test_layer_norm(rows: int, width: int, probability: float, has_residual: bool) -> None:
    ours, wide = leaves(normal(rows, width), normal(rows, width, seed=1), normal(width), normal(width, seed=2))
    grad = normal(rows, width, seed=3)
    torch.manual_seed(1)
    seed = draw_seed()
    torch.manual_seed(1)
    out = native_layer_norm(ours[0], ours[1] if has_residual else None, ours[2], ours[3], 1e-12, probability)
    out.backward(grad)
    total = wide[0]
    if probability:
        total = total * philox_keep_mask((rows, width), probability, seed) / (1 - drop_below(probability) / 65536)
    total = total + wide[1] if has_residual else total
    F.layer_norm(total, (width,), wide[2], wide[3], 1e-12).backward(grad.double())
    assert_near(out, F.layer_norm(total, (width,), wide[2], wide[3], 1e-12))
    for mine, reference in zip(ours, wide, strict=True):
        if reference.grad is not None:
            assert_near(mine.grad, reference.grad)


def attention_mask(bounds: list[int], heads: int, probability: float, seed: int) -> list[Tensor]:
    """Keep masks (A, L, L) of each sequence, by the counters that the kernel's docstring promises."""
    masks = []
    for first, last in itertools.pairwise(bounds):
        length = last - first
        query, group, head = torch.meshgrid(
            torch.arange(first, last), torch.arange((length + 7) // 8), torch.arange(heads), indexing="ij"
        )
        words = philox_words([t.flatten() for t in (query, group, head)], seed)  # (L * groups * A, 4)
        halves = torch.stack([words & 0xFFFF, words >> 16], dim=2).view(length, -1, heads, 8)
        kept = halves.permute(2, 0, 1, 3).flatten(2)[:, :, :length] >= drop_below(probability)
        masks.append(kept)
    return masks


def philox_words(counters: list[Tensor], seed: int) -> Tensor:
    """Philox4x32-10 of three counters, in Python's own integers."""
    rows = []
    for counter in zip(*(c.tolist() for c in counters), strict=True):
        words, keys = [*counter, 0], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(ROUNDS):
            products = [words[2 * i] * MULTIPLIERS[i] for i in range(2)]
            (high0, low0), (high1, low1) = ((p >> 32, p & 0xFFFFFFFF) for p in products)
            words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
            keys = [(key + step) & 0xFFFFFFFF for key, step in zip(keys, KEY_STEPS, strict=True)]
        rows.append(words)
    return torch.tensor(rows)


# 130 and 97: more than a block of queries or keys, and no whole one; 1: a sequence of its own.
@pytest.mark.parametrize(
    ("lengths", "heads", "width"),
    [((7, 3, 130, 48, 1, 97), 2, 64), ((33, 64), 2, 32), ((20, 5), 3, 48), ((50,), 1, 16)],
)
@pytest.mark.parametrize("probability", [0.0, 0.1])
def test_attention(lengths: tuple[int, ...], heads: int, width: int, probability: float) -> None:
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    ours, wide = leaves(normal(sum(lengths), 3, heads, width))
    grad = normal(sum(lengths), heads * width, seed=1)
    torch.manual_seed(1)
    seed = draw_seed()
    torch.manual_seed(1)
    out = native_attention(ours[0], torch.tensor(bounds, dtype=torch.int32), probability)
    out.backward(grad)
    parts = []
    masks = attention_mask(bounds, heads, probability, seed)
    for first, last, mask in zip(bounds[:-1], bounds[1:], masks, strict=True):
        query, key, value = wide[0][first:last].permute(1, 2, 0, 3)
        weights = torch.softmax(query @ key.transpose(-1, -2) * width**-0.5, -1)
        weights = weights * mask / (1 - drop_below(probability) / 65536) if probability else weights
        parts.append((weights @ value).transpose(0, 1).flatten(1))
    expected = torch.cat(parts)
    expected.backward(grad.double())
    assert_near(out, expected)
    assert_near(ours[0].grad, wide[0].grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    wide = torch.zeros(16, 16, dtype=dtype)
    with pytest.raises(TypeError, match="need bf16 on the CPU"):
        native_linear(wide, wide, wide[0])
    with pytest.raises(TypeError, match="need bf16 on the CPU"):
        native_layer_norm(wide, None, wide[0], wide[0], 1e-12, 0.0)
    with pytest.raises(TypeError, match="need bf16 on the CPU"):
        native_attention(torch.zeros(4, 3, 1, 16, dtype=dtype), torch.tensor([0, 4], dtype=torch.int32), 0.0)


def test_second_derivatives_are_refused() -> None:
    hidden = normal(16, 16).requires_grad_()
    weight = normal(16, 16).requires_grad_()
    out = native_linear(hidden, weight, torch.zeros(16).bfloat16())
    (grad,) = torch.autograd.grad(out.float().square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_scale_to_bf16() -> None:
    for count in (5, 16, 1000):
        tensor = torch.randn(count)
        assert torch.equal(scale_to_bf16(tensor, 0.37), (tensor * 0.37).bfloat16())


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'no space left on this planet' >&2\nexit 1\n")
    broken.chmod(0o755)
    script = "from model.kernels.native.library import obstacle; print(obstacle())"
    environment = os.environ | {"CXX": str(broken), "DISTILLERY_CACHE": str(tmp_path / "cache")}
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "no space left on this planet" in result.stdout
