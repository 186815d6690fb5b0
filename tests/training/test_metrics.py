"""Accumulators, tags, and a run folder that is continued."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.launch import run
from training.files import write_json
from training.metrics import Clock, LossSums, measure_gemm_peak, peak_memory_bytes, tensorboard_tag
from training.parts import PARTS
from training.run_folder import RunFolder, describe


@pytest.mark.parametrize(
    ("field", "tag"),
    [
        ("loss", "loss/loss"),
        ("loss_mlm", "loss/loss_mlm"),
        ("loss_cosine_weighted", "loss/loss_cosine_weighted"),
        ("loss_scale", "optim/loss_scale"),
        ("skipped_updates", "optim/skipped_updates"),
        ("mfu", "throughput/mfu"),
        ("communication_share", "throughput/communication_share"),
        ("peak_memory_bytes", "memory/peak_memory_bytes"),
        ("eval_agreement", "eval/eval_agreement"),
    ],
)
def test_tags(field: str, tag: str) -> None:
    assert tensorboard_tag(field) == tag


def test_loss_sums_average_over_updates_and_add_over_micro_batches() -> None:
    sums = LossSums(("a", "b"), torch.device("cpu"))
    for update in range(3):
        for share in (0.25, 0.5):
            sums.add((torch.tensor(share * update), torch.tensor(1.0, requires_grad=True)))
        sums.count_update()
    sums.add((torch.tensor(torch.nan), torch.tensor(1.0)))
    sums.count_update(is_applied=False)
    assert sums.take().tolist() == pytest.approx([0.75, 2.0])
    assert sums.take().isnan().all()


def test_loss_sums_are_continued() -> None:
    whole, first, second = (LossSums(("a",), torch.device("cpu")) for _ in range(3))
    for update in range(4):
        for sums in (whole, first if update < 3 else second):
            if sums is second:
                second.restore(first.state(), first.updates)
            sums.add((torch.tensor(0.1 * update),))
            sums.count_update()
    assert second.take().equal(whole.take())


def test_clock_leaves_pauses_out() -> None:
    clock = Clock()
    time.sleep(0.02)
    with clock.paused():
        time.sleep(0.2)
    assert 0.02 <= clock.take() < 0.15
    assert clock.take() < 0.05


def test_peak_memory_is_this_process_and_grows() -> None:
    """In a process of its own, started by one that is larger: neither must its parent's peak count."""
    script = (
        "import torch; from training.metrics import peak_memory_bytes as peak; cpu = torch.device('cpu')\n"
        "before = peak(cpu); block = torch.ones(100_000_000); print(before, peak(cpu))"
    )
    assert peak_memory_bytes(torch.device("cpu")) > 0
    ballast = torch.ones(300_000_000)
    before, after = map(int, run([sys.executable, "-c", script]).stdout.split())
    assert ballast.numel() * 4 > before
    assert after >= before + 350e6


def test_gemm_peak_is_plausible() -> None:
    assert 1e9 < measure_gemm_peak(torch.device("cpu"), torch.float32) < 1e14


def test_a_continued_run_forgets_what_comes_after_its_checkpoint(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, {"flags": {}}, 0, 10)
    for update in (2, 4, 6):
        first.record({"update": update, "loss": 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 4, "torn')
    second = RunFolder(tmp_path, {"flags": {"changed": 1}}, 4, 10)
    second.record({"update": 6, "loss": 2.0})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["update"], line["loss"]) for line in lines] == [(2, 1.0), (4, 1.0), (6, 2.0)]
    assert json.loads((tmp_path / "config.json").read_text()) == {"flags": {}}  # the run keeps its own configuration


def test_a_file_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"a": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_lines_for_people_name_their_figures() -> None:
    fields = {"update": 3, "loss": 1.5, "loss_mlm": 1.25, "learning_rate": 5e-4, "grad_norm": 2.0}
    fields |= {"tokens_per_second": 12345.0, "mfu": 0.4, "data_wait_share": 0.001}
    fields |= {f"{part}_share": 0.15 for part in PARTS}
    assert describe(fields, 9) == (
        "update 3/9  loss 1.5000  mlm 1.2500  lr 5.00e-04  grad 2.00  12,345 tokens/s  MFU 40%  data wait 0.1%  "
        "teacher 15%  student 15%  head 15%  backward 15%  optimizer 15%  communication 15%"
    )
    assert describe({"update": 3, "eval_mlm_loss": 2.0}, 9) == "held-out at update 3: mlm_loss 2.0000"
