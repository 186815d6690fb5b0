"""Which kernels run, and what a user is told where they cannot."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from model.config import EncoderConfig
from model.kernels.choice import IMPLEMENTS, Kernels, choose_kernels
from model.kernels.native.library import obstacle

SHAPE = EncoderConfig(vocab_size=1000, hidden_size=32, num_heads=2, intermediate_size=64)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are found in before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "apex", raising=False)
    return tmp_path


def install(site: Path, *files: str) -> None:
    for file in files:
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('the choice must not run it')\n")


def test_fp32_on_a_cpu_is_plain_torch() -> None:
    kernels, why = choose_kernels("auto", "auto", SHAPE, CPU, torch.float32)
    assert kernels == Kernels(attention="blocked")
    assert (
        "kernels torch for linear, layer_norm, activation, vocab_loss (native: it needs bf16, this is float32)" in why
    )
    assert "counter-based" not in why


def test_on_cuda_auto_is_triton_and_says_so(site: Path) -> None:
    install(site, "triton/__init__.py")
    kernels, why = choose_kernels("auto", "softmax", SHAPE, CUDA, torch.bfloat16)
    assert {getattr(kernels, operation) for operation in IMPLEMENTS["triton"]} == {"triton"}
    assert "triton for layer_norm, activation, softmax, vocab_loss (fused), dropout counter-based (Philox)" in why


def test_the_softmax_is_not_spoken_of_where_nobody_asks_for_it(site: Path) -> None:
    install(site, "triton/__init__.py")
    kernels, why = choose_kernels(
        "auto", "sdpa", dataclasses.replace(SHAPE, hidden_dropout=0.0, attention_dropout=0.0), CUDA, torch.bfloat16
    )
    assert kernels.softmax == "torch"
    assert "softmax" not in why


def test_torch_by_name() -> None:
    kernels, why = choose_kernels("torch", "sdpa", SHAPE, CUDA, torch.bfloat16)
    assert kernels == Kernels(attention="sdpa")
    assert "torch for layer_norm, activation, vocab_loss (asked for)" in why


def test_apex_runs_the_norm_and_auto_the_rest(site: Path) -> None:
    install(
        site, "triton/__init__.py", "apex/__init__.py", "apex/normalization/__init__.py", "fused_layer_norm_cuda.py"
    )
    kernels, why = choose_kernels("apex", "sdpa", SHAPE, CUDA, torch.bfloat16)
    assert (kernels.layer_norm, kernels.activation, kernels.vocab_loss) == ("apex", "triton", "triton")
    assert "apex for layer_norm (asked for); triton for activation, vocab_loss (fused, apex has none)" in why


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "NVIDIA's apex is not installed"),
        (("apex/__init__.py",), r"the package apex in .*/apex is not NVIDIA's: it has no apex\.normalization"),
        (("apex.py",), r"the package apex in .*/apex\.py is not NVIDIA's"),
        (("apex/__init__.py", "apex/normalization/__init__.py"), "built without its CUDA extensions"),
    ],
)
def test_an_apex_that_cannot_run_is_named(site: Path, files: tuple[str, ...], message: str) -> None:
    install(site, *files)
    with pytest.raises(ValueError, match=f"--kernels apex cannot run: .*{message}.*Use --kernels auto"):
        choose_kernels("apex", "sdpa", SHAPE, CUDA, torch.bfloat16)


@pytest.mark.parametrize("name", ["triton", "apex"])
def test_kernels_for_gpus_are_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(ValueError, match=f"--kernels {name} cannot run: it needs a CUDA device, this is cpu"):
        choose_kernels(name, "auto", SHAPE, CPU, torch.float32)


@pytest.mark.skipif(bool(obstacle()), reason=obstacle())
def test_bf16_on_a_cpu_is_native() -> None:
    kernels, why = choose_kernels("auto", "auto", SHAPE, CPU, torch.bfloat16)
    assert {kernels.attention, *(getattr(kernels, operation) for operation in IMPLEMENTS["native"])} == {"native"}
    assert "native for linear, layer_norm, activation, vocab_loss (fused), dropout counter-based" in why
    assert choose_kernels("native", "blocked", SHAPE, CPU, torch.bfloat16)[0].attention == "blocked"
    assert choose_kernels("torch", "auto", SHAPE, CPU, torch.bfloat16)[0] == Kernels(attention="blocked")


def test_native_says_why_it_cannot_run() -> None:
    narrow = dataclasses.replace(SHAPE, hidden_size=24)
    with pytest.raises(ValueError, match="widths that are multiples of 16, these are 24, 64"):
        choose_kernels("native", "auto", narrow, CPU, torch.bfloat16)
    with pytest.raises(ValueError, match="it is for CPUs, this is cuda"):
        choose_kernels("native", "sdpa", SHAPE, CUDA, torch.bfloat16)
    with pytest.raises(ValueError, match="--attention native cannot run: it needs --kernels native"):
        choose_kernels("torch", "native", SHAPE, CPU, torch.bfloat16)


@pytest.mark.skipif(bool(obstacle()), reason=obstacle())
@pytest.mark.parametrize("wanted", ["auto", "native"])
def test_odd_heads_cost_the_native_attention_alone(wanted: str) -> None:
    odd = dataclasses.replace(SHAPE, hidden_size=48, num_heads=4)
    kernels, why = choose_kernels(wanted, "auto", odd, CPU, torch.bfloat16)
    assert kernels.attention == "blocked"
    assert {getattr(kernels, operation) for operation in IMPLEMENTS["native"]} == {"native"}
    assert "native: it needs heads whose width is a multiple of 16, these have 12" in why
    with pytest.raises(ValueError, match=r"--attention native cannot run: it needs heads .* 16, these have 12"):
        choose_kernels(wanted, "native", odd, CPU, torch.bfloat16)
