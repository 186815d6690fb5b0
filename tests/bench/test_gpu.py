"""The report of one device: it needs no DeepSpeed and no tyro, keeps what works and says what does not."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.loss_worker import Inputs
from bench.workload import Workload

BLOCK = """\
import sys


class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("deepspeed", "tyro", "datasets"):
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def without_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python process started from here on fails to import what a bare GPU machine lacks."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("without_deepspeed")
def test_the_report_survives_failing_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {part.name: part for part in gpu.parts("tiny")}
    kept = [
        real["update: ours, 2 x 16"],
        gpu.Part("kernels", gpu.worker("bench.no_such_module"), str),
        gpu.Part("bare", [sys.executable, "-c", "import deepspeed"], str),
    ]
    monkeypatch.setattr(gpu, "parts", lambda size: iter(kept))
    monkeypatch.setattr(sys, "argv", ["gpu", "--size", "tiny", "--output", str(tmp_path / "out")])
    assert gpu.main() == 0
    outcomes = json.loads((tmp_path / "out" / "results.json").read_text())
    assert outcomes["update: ours, 2 x 16"]["result"]["seconds"][0] > 0, outcomes
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| 2 x 16 | distillery | " in report
    assert "- kernels: FAILED: exit code 1: " in report
    assert "deepspeed is not installed here" in report


def test_a_part_has_its_time() -> None:
    endless = gpu.Part("endless", [sys.executable, "-c", "import time; time.sleep(60)"], str)
    assert gpu.run_part(endless, 0.2) == {"failure": "given up after 0 s"}


def test_every_part_is_there_in_the_order_of_its_worth() -> None:
    names = [part.name for part in gpu.parts("base")]
    assert names[0] == "update: ours, 256 x 128"
    assert names[-3:] == ["loss: 256 x 128", "loss: 64 x 512", "kernels"]
    assert len(names) == 2 * len(gpu.STEP_VARIANTS) + 3


def test_both_losses_alone_are_the_same_loss() -> None:
    """What is timed side by side has the same value and the same gradients, to the rounding of bf16 logits."""
    inputs = Inputs(
        Workload(variant="ours", size="tiny", length=16, sequences=2, updates=0, vocab_size=2048), torch.device("cpu")
    )
    found = []
    for loss in (inputs.ours, inputs.eager):
        value = loss()
        value.backward()
        assert inputs.features.grad is not None
        found.append((value.detach(), inputs.features.grad.clone()))
        inputs.clear()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-2, atol=1e-2)
    difference = (found[0][1] - found[1][1]).float().norm() / found[1][1].float().norm()
    assert difference < 0.05
