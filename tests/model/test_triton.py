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


def run(*command: str, **environment: str) -> None:
    process = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_kernels_are_right_in_the_interpreter() -> None:
    files = sorted(str(path) for path in Path(__file__).parent.glob("test_triton_*.py"))
    run("-m", "pytest", "-x", "-p", "no:cacheprovider", *files, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


def test_kernels_compile_for_the_gpu(tmp_path: Path) -> None:
    run("-m", "tests.model.compile_triton", TRITON_CACHE_DIR=str(tmp_path))
