"""Without a CUDA device: the Triton kernels' tests in the interpreter, and the kernels through Triton's real compiler."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.launch import ROOT

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton_*.py run on the device itself"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=os.environ | environment, **everything)


def test_kernels_are_right_in_the_interpreter() -> None:
    files = sorted(str(path) for path in Path(__file__).parent.glob("test_triton_*.py"))
    command = ("-m", "pytest", "-x", "-rA", "-p", "no:cacheprovider", *files)
    process = run(*command, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert process.returncode == 0, process.stdout
    for file in files:  # none of them was left out
        assert f"PASSED {Path(file).relative_to(ROOT)}::" in process.stdout


def test_kernels_compile_for_the_gpu(tmp_path: Path) -> None:
    process = run("-m", "tests.model.compile_triton", TRITON_CACHE_DIR=str(tmp_path))
    assert process.returncode == 0, process.stdout
    for module in ("layer_norm", "activation", "softmax", "vocab_loss"):
        launches = [line for line in process.stdout.splitlines() if f"triton_kernels.{module}." in line]
        assert launches
        assert all("'LOCAL': 0" in line for line in launches), "registers spill"
