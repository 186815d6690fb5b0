"""The side-by-side benchmark of one update: does it run, is its work equal, is its arithmetic right?"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.step import ROOT, StepConfig, measure_all, run_process
from bench.step_hugging_face import IGNORED_LABEL, bert_config, distilbert_config, eager_triple_loss
from bench.step_ours import MasterAdamW
from bench.step_report import Result, speed_table
from bench.step_worker import make_batch
from bench.workload import DEFAULT_VARIANTS, PARTS, SIZES, VARIANTS, Measurement, Workload
from model.bert import MaskedLanguageModel, Prediction
from model.config import ObjectiveConfig
from model.kernels.vocab_loss import Decoder
from model.objective import TripleLoss
from model.student import make_random


def workload(variant: str = "ours", size: str = "tiny", length: int = 16, sequences: int = 2) -> Workload:
    return Workload(variant=variant, size=size, length=length, sequences=sequences, updates=1)


def measurement(seconds: list[float], peak_bytes: int) -> Measurement:
    return Measurement(
        seconds=seconds,
        parts={part: [s / len(PARTS) for s in seconds] for part in PARTS},
        peak_bytes=peak_bytes,
        baseline_bytes=10**8,
        gemm_peak=1e12,
        copy_bandwidth=1e10,
        preemptions_per_second=0.0,
        loss=1.0,
        num_threads=2,
        device="cpu",
        setup="as in a test",
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


@pytest.mark.slow
def test_the_command_measures_every_variant_and_appends_its_table(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Measured\n")
    arguments = ["--size", "tiny", "--lengths", "16", "--sequences", "2", "--rounds", "1", "--updates", "1"]
    command = [sys.executable, "-m", "bench.step", *arguments, "--append", str(path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    appended = path.read_text()
    assert appended == f"# Measured\n\n{process.stdout}"
    assert f"python -m bench.step {' '.join(arguments)}" in appended
    rows = [cells(line) for line in appended.splitlines() if line.startswith("| 2 x 16 |")]
    variants = [VARIANTS[name] for name in DEFAULT_VARIANTS]
    assert [row[1] for row in rows] == [*variants, *variants, *PARTS]  # speed and memory, parts, roofline
    for row in rows[: 2 * len(variants)]:
        figures = [float(cell.split(" [")[0].rstrip("%").replace(",", "")) for cell in row[2:]]
        assert all(figure >= 0 for figure in figures)
        assert max(figures[:3]) > 0
    for tokens_per_second, seconds, _, peak, imports, *_ in (
        [cell.split(" [")[0] for cell in row[2:]] for row in rows[:3]
    ):
        assert float(tokens_per_second.replace(",", "")) == pytest.approx(32 / float(seconds), rel=0.05)
        assert float(peak) > float(imports) > 0


def test_the_parent_is_small_because_children_inherit_its_peak_memory() -> None:
    check = "import bench.step, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


def test_a_failing_variant_shows_its_error_and_fails_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    beyond = SIZES["tiny"].max_positions + 1
    with pytest.raises(RuntimeError, match=f"distillery on 2 x {beyond} ended with exit code 1"):
        run_process(workload(length=beyond))
    assert "Traceback" in capfd.readouterr().err


def test_variants_take_turns_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[int, str]] = []

    def record(work: Workload) -> Measurement:
        order.append((work.length, work.variant))
        return measurement([1.0], 10**9)

    monkeypatch.setattr("bench.step.run_process", record)
    results = measure_all(StepConfig(size="tiny", lengths=(16, 32), rounds=2))
    assert order == [(length, variant) for length in (16, 32) for _ in range(2) for variant in DEFAULT_VARIANTS]
    assert [len(result.runs) for result in results] == [2] * 6


def test_ratios_are_of_medians_over_all_rounds() -> None:
    results = [
        Result(workload("ours"), [measurement([1.0, 2.0], 10**9), measurement([2.0, 9.0], 2 * 10**9)]),
        Result(workload("hf_fp32"), [measurement([8.0], 4 * 10**9)]),
        Result(workload("hf_autocast"), [measurement([4.0], 8 * 10**9)]),
    ]
    ours, _, autocast = (cells(line) for line in speed_table(results, 1e12)[2:])
    assert ours[2:4] == ["16 [4-32]", "2"]
    assert autocast[-4:] == ["2.00", "2.00", "4.000", "0.25"]  # 2x fp32; ours 2x as fast in a quarter of the memory
    alone = cells(speed_table(results[1:2], 1e12)[2])
    assert alone[-4:] == ["1.00", "", "", ""]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("ours", "theirs")}, "--variants ours theirs: choose from ours, "),
        ({"variants": ("ours", "hf_fp32"), "ranks": 2}, "hf_fp32 cannot share an update"),
        ({"micro_batches": 0}, "--micro_batches 0: at least 1"),
    ],
)
def test_impossible_comparisons_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepConfig(**changes)


def test_micro_batches_of_the_raw_loop_add_up() -> None:
    """Quarters of a gradient, four times, move the weights as the whole one does."""
    config = dataclasses.replace(SIZES["tiny"], vocab_size=64)
    moved = []
    for micro_batches in (1, 4):
        model = make_random(config, seed=0)
        optimizer = MasterAdamW(model, torch.float32)
        for _ in range(micro_batches):
            generator = torch.Generator().manual_seed(0)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator) / micro_batches
            optimizer.accumulate()
        optimizer.step()
        moved.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(moved[0], moved[1])


def test_flops_are_those_of_the_published_pair() -> None:
    """BERT-base to DistilBERT at length 512, KL on all positions: 664 MFLOP a token."""
    base = workload(size="base", length=512, sequences=8)
    assert base.flops / base.num_tokens == pytest.approx(664e6, rel=0.002)


def test_both_sides_train_the_same_number_of_weights() -> None:
    from transformers import BertForMaskedLM, DistilBertForMaskedLM

    tiny = workload()
    with torch.device("meta"):
        sides = (
            (BertForMaskedLM(bert_config(tiny.teacher)), MaskedLanguageModel(tiny.teacher), 2),
            (DistilBertForMaskedLM(distilbert_config(tiny.student)), MaskedLanguageModel(tiny.student), 0),
        )
    for theirs, ours, token_types in sides:
        extra = (ours.config.padded_vocab_size - ours.config.vocab_size) * (ours.config.hidden_size + 1)
        expected = sum(p.numel() for p in theirs.parameters()) - token_types * ours.config.hidden_size
        assert sum(p.numel() for p in ours.parameters()) - extra == expected


def test_batches_are_full_and_masked_evenly() -> None:
    batch = make_batch(workload(length=40, sequences=3))
    assert batch.num_tokens == 120
    assert torch.bincount(batch.masked_positions // 40).tolist() == [6, 6, 6]
    assert torch.equal(batch.masked_positions, batch.masked_positions.unique())


def test_the_eager_loss_is_ours_over_its_own_denominators() -> None:
    """The same logits, padding included, give the same loss and gradients on both sides: equal work is compared."""
    lengths, vocab_size, width = (9, 4), 37, 12
    attention_mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    attended = attention_mask.bool()
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 9, width, generator=generator, dtype=torch.float64) for _ in range(4)]
    weights = [torch.randn(vocab_size, width, generator=generator, dtype=torch.float64) for _ in range(2)]
    labels = torch.full((2, 9), IGNORED_LABEL)
    labels[0, 2], labels[0, 7], labels[1, 1] = 5, 0, 36
    config, bias = ObjectiveConfig(), torch.zeros(vocab_size, dtype=torch.float64)

    def eager(hidden: Tensor, features: Tensor) -> Tensor:
        logits = (features @ weights[0].T, draws[3] @ weights[1].T)
        return eager_triple_loss(*logits, hidden, draws[2], attention_mask, labels, config)

    def ours(hidden: Tensor, features: Tensor) -> Tensor:
        packed_labels = labels[attended]
        return TripleLoss(config)(
            Prediction(hidden[attended], features[attended], Decoder(weights[0], bias, vocab_size)),
            Prediction(draws[2][attended], draws[3][attended], Decoder(weights[1], bias, vocab_size)),
            (packed_labels != IGNORED_LABEL).nonzero().flatten(),
            packed_labels[packed_labels != IGNORED_LABEL],
            attended=sum(lengths),
            masked=3,
        ).total

    outcomes = []
    for loss_of in (eager, ours):
        inputs = [draw.clone().requires_grad_() for draw in draws[:2]]
        loss = loss_of(*inputs)
        outcomes.append([loss, *torch.autograd.grad(loss, inputs)])
    for theirs, own in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-14)
