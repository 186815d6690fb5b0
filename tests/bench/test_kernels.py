"""The benchmark of single operations: does it run, is its work equal, do its tables say what was measured?"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import kernels_small, kernels_vocab
from bench.kernels import Result, cases_of, parse_arguments, render, run_case
from bench.kernels_cases import OPERATIONS, SIZES, Case, Figures
from bench.kernels_worker import measure
from tests.launch import ROOT

CPU = torch.device("cpu")
EVERYWHERE = [operation for operation in OPERATIONS if operation != "logits"]  # which only kernels for GPUs have


def case(operation: str, implementation: str) -> Case:
    shape = SIZES["tiny"]
    return Case(operation=operation, implementation=implementation, tokens=shape.tokens, vocab=shape.vocab, size="tiny")


def test_the_command_writes_its_tables_and_figures(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Measured\n")
    flags = ["--size", "tiny", "--operations", "layer_norm", "--without", "compile", "torch", "native"]
    arguments = [*flags, "--append", str(path), "--output", str(tmp_path / "out")]
    code = (
        f"import sys; from bench.kernels import main; main({arguments!r}); "
        "assert not {'deepspeed', 'tyro'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert path.read_text() == f"# Measured\n\n{process.stdout}"
    (row,) = [line for line in process.stdout.splitlines() if line.startswith("| layer_norm |")]
    assert [cell.strip() for cell in row.split("|")][2] == "plain torch"
    (figures,) = json.loads((tmp_path / "out/kernels.json").read_text())["cases"]
    assert figures["seconds"] > 0
    assert not figures["failure"]


@pytest.mark.parametrize("operation", EVERYWHERE)
def test_every_implementation_of_this_device_runs(operation: str) -> None:
    names = kernels_vocab.implementations(CPU) if operation == "vocab_loss" else []
    names = names or kernels_small.implementations(operation, CPU)
    assert "eager" in names
    for name in names:
        if name != "compile":  # half a minute of compiling
            figures = measure(case(operation, name))
            assert figures.seconds > 0
            assert figures.peak_bytes >= 0


def test_errors_tell_rounded_logits_from_exact_ones() -> None:
    exact, rounded = (measure(case("vocab_loss", name)) for name in ("torch", "eager"))
    for name in ("features_error", "weight_error"):
        assert 0 < getattr(exact, name) < 5e-3 < getattr(rounded, name)


def test_implementations_compute_the_same_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_small, "DROPOUT", 0.0)
    for operation in EVERYWHERE[1:]:
        torch.manual_seed(0)
        inputs = kernels_small.make_inputs(case(operation, "eager"), CPU)
        plain, ours = (kernels_small.function_of(case(operation, name), CPU)(inputs) for name in ("eager", "torch"))
        torch.testing.assert_close(ours, plain, rtol=2e-2, atol=2e-2)
    inputs = kernels_vocab.make_inputs(case("vocab_loss", "eager"), CPU)
    plain, ours = (kernels_vocab.loss_of(name)(inputs) for name in ("eager", "torch"))
    torch.testing.assert_close(ours, plain, rtol=2e-2, atol=0.0)


def test_bandwidth_is_what_the_operation_has_to_move_over_its_time() -> None:
    work = dataclasses.replace(case("layer_norm", "torch"), tokens=1000)
    results: list[Result] = [(work, Figures(seconds=1e-3, peak_bytes=10**6))]
    table = render(results, [], 2 * 1000 * 32 * 16 / 1e-3, CPU, "command")
    assert "| layer_norm | ours, torch | 1.000 | 0.001 | 1 | 50% |" in table


def test_a_case_that_fails_is_a_row_and_not_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    figures = run_case(case("layer_norm", "apex"), CPU)
    assert figures.failure == "exit code 1"
    assert "apex" in capfd.readouterr().err
    assert "| exit code 1 | | | |" in render([(case("layer_norm", "apex"), figures)], [], 1e9, CPU, "command")


def test_the_vocabulary_loss_is_measured_at_several_sizes_and_chunks() -> None:
    options = parse_arguments(["--size", "tiny", "--operations", "vocab_loss", "logits", "--without", "native"])
    cases, growth = cases_of(options, CPU)
    assert [case.implementation for case in cases] == ["torch", "eager", "compile"]
    assert {(case.tokens, case.vocab) for case in growth} == {
        *((tokens, 500) for tokens in (12, 24, 48, 96)),
        *((48, 1000), (48, 2000)),
    }
    assert [case.chunk_tokens for case in growth if case.chunk_tokens] == [128, 256, 512]


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--size", "huge"])
