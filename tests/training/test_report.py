"""The arithmetic of a line of metrics over two ranks, of which the other is made up."""

import time

import pytest
import torch

import training.report
from training.lifecycle import DivergedError
from training.parts import SHARES
from training.report import Report

CPU = torch.device("cpu")
WEIGHTS = {"distillation": 5.0, "mlm": 2.0, "cosine": 1.0}
OTHER_RANK = [7.0, 1.0, 0.5, 1.0, 0.2, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 1e12]  # four losses, seven shares, memory


def test_losses_add_up_shares_are_averaged_and_memory_is_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training.report,
        "gather_over_ranks",
        lambda row: torch.stack([row, torch.tensor(OTHER_RANK, dtype=torch.float64)]),
    )
    report = Report(WEIGHTS, device=CPU, num_ranks=2, peak_flops=1e6)
    started = time.perf_counter()
    for _ in range(2):  # updates of two micro-batches each
        for value in (0.25, 0.75):
            with report.parts("head"):
                time.sleep(0.02)
            report.add({name: torch.tensor(value) for name in ("total", "cosine", "mlm", "distillation")})
        report.count_update(tokens=300, flops=1e5)
    fields = report.line({"update": 4}, {"skipped_updates": 0}, wait_seconds=0.01)
    seconds = time.perf_counter() - started
    assert list(fields)[:5] == ["update", "loss", "loss_distillation", "loss_mlm", "loss_cosine"]
    assert [fields[name] for name in list(fields)[1:5]] == pytest.approx([8.0, 2.0, 1.5, 2.0])
    assert [fields[f"loss_{name}_weighted"] for name in WEIGHTS] == pytest.approx([10.0, 3.0, 2.0])
    assert fields["tokens_per_second"] == pytest.approx(600 / seconds, rel=0.1)
    assert fields["mfu"] == pytest.approx(2e5 / seconds / 2e6, rel=0.1)
    assert fields["peak_memory_bytes"] == 10**12
    assert fields["data_wait_share"] == pytest.approx((0.01 / seconds + 0.2) / 2, rel=0.1)
    assert fields["head_share"] == pytest.approx((0.08 / seconds + 0.1) / 2, rel=0.15)
    assert [fields[share] for share in SHARES if share not in ("data_wait_share", "head_share")] == pytest.approx(
        [0.05, 0.05, 0.1, 0.05, 0.05], abs=0.01
    )
    again = report.line({"update": 4}, {"skipped_updates": 0}, wait_seconds=0.01)
    assert again["tokens_per_second"] == 0
    assert again["data_wait_share"] == pytest.approx(0.1)


def test_a_loss_that_is_not_finite_ends_the_run_unless_its_update_was_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.report, "gather_over_ranks", lambda row: row[None])
    report = Report({}, device=CPU, num_ranks=1, peak_flops=1.0)
    for is_applied, value in ((True, 1.0), (False, float("nan"))):
        report.add({"total": torch.tensor(value), "mlm": torch.tensor(value)})
        report.count_update(10, 1.0, is_applied)
        fields = report.line({"update": 1}, {"skipped_updates": 0}, 0.0)
        assert (fields["loss"] == value) == is_applied
        report.check(fields)
    report.add({"total": torch.tensor(float("nan")), "mlm": torch.tensor(1.0)})
    report.count_update(10, 1.0)
    with pytest.raises(DivergedError, match="the loss is nan at update 3"):
        report.check(report.line({"update": 3}, {"skipped_updates": 0}, 0.0))
