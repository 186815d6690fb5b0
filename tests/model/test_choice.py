"""Which kernels run, and what a user is told where they cannot."""

import sys
from pathlib import Path

import pytest
import torch

from model.kernels.choice import OPERATIONS, Kernels, choose_kernels

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
    kernels, why = choose_kernels("auto", "auto", CPU, torch.float32, 0.1)
    assert kernels == Kernels(attention="blocked")
    assert "kernels torch for layer_norm, activation, vocab_loss (triton: it needs a CUDA device, this is cpu)" in why
    assert "counter-based" not in why


def test_on_cuda_auto_is_triton_and_says_so(site: Path) -> None:
    install(site, "triton/__init__.py")
    kernels, why = choose_kernels("auto", "softmax", CUDA, torch.bfloat16, 0.1)
    assert {getattr(kernels, operation) for operation in OPERATIONS} == {"triton"}
    assert "triton for layer_norm, activation, softmax, vocab_loss (fused), dropout counter-based (Philox)" in why


def test_the_softmax_is_not_spoken_of_where_nobody_asks_for_it(site: Path) -> None:
    install(site, "triton/__init__.py")
    kernels, why = choose_kernels("auto", "sdpa", CUDA, torch.bfloat16, 0.0)
    assert kernels.softmax == "torch"
    assert "softmax" not in why


def test_torch_by_name() -> None:
    kernels, why = choose_kernels("torch", "sdpa", CUDA, torch.bfloat16, 0.1)
    assert kernels == Kernels(attention="sdpa")
    assert "torch for layer_norm, activation, vocab_loss (asked for)" in why


def test_apex_runs_the_norm_and_auto_the_rest(site: Path) -> None:
    install(
        site, "triton/__init__.py", "apex/__init__.py", "apex/normalization/__init__.py", "fused_layer_norm_cuda.py"
    )
    kernels, why = choose_kernels("apex", "sdpa", CUDA, torch.bfloat16, 0.1)
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
        choose_kernels("apex", "sdpa", CUDA, torch.bfloat16, 0.1)


@pytest.mark.parametrize("name", ["triton", "apex"])
def test_kernels_for_gpus_are_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(ValueError, match=f"--kernels {name} cannot run: it needs a CUDA device, this is cpu"):
        choose_kernels(name, "auto", CPU, torch.float32, 0.1)
