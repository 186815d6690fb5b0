"""Stopping, resuming and converting, with the real commands on real ranks."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Toy
from tests.launch import ROOT, ds_config, environment, metrics, start, torchrun, torchrun_command
from training.attempts import read_records
from training.parts import SHARES

CLOCKS = {"tokens_per_second", "mfu", "peak_memory_bytes", *SHARES}
UPDATES = 30


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ds_config(tmp_path_factory.mktemp("config") / "ds.json")


def flags(toy: Toy, config: Path, output: Path, **changes: object) -> list[object]:
    values: dict[str, object] = {
        "ds_config": config,
        "teacher": toy.teacher,
        "data": toy.train,
        "eval_data": toy.heldout,
        "max_length": 40,
        "max_updates": UPDATES,
        "log_every": 4,  # no divisor of where runs stop: a line must span the stop
        "eval_every": 10,
        "checkpoint_every": 5,
        "output": output,
        **changes,
    }
    return [
        "train.py",
        *(text for name, value in values.items() for text in (f"--{name}", value)),
        "--no_check_teacher",
    ]


@pytest.fixture(scope="module")
def whole(toy: Toy, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to, on two ranks, with dropout."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = torchrun(2, *flags(toy, config, folder))
    assert result.returncode == 0, result.stdout[-4000:]
    return folder


def figures(folder: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what a clock decides."""
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in metrics(folder)]


def assert_same_run(folder: Path, whole: Path) -> None:
    assert figures(folder) == figures(whole)
    expected, got = (load_file(run / "student/model.safetensors") for run in (whole, folder))
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The processes that train, in the order of their start."""
    children = [child for child in launcher.children(recursive=True) if "train.py" in " ".join(child.cmdline())]
    return sorted((child for child in children if not child.children()), key=lambda child: child.pid)


def interrupt(command: list[object], update: int, folder: Path, act: Callable[[psutil.Process], None]) -> str:
    """Start, `act` on the launcher's process as soon as that update is over, and wait; the output."""
    with start(command) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if f"update {update}/" in line:
                act(psutil.Process(process.pid))
                break
        else:
            raise AssertionError(f"update {update} was never made:\n{seen[-4000:]}")
        return seen + process.stdout.read()


def test_a_signal_to_one_rank_saves_and_resumes_bit_for_bit(
    toy: Toy, config: Path, whole: Path, tmp_path: Path
) -> None:
    command = torchrun_command(2, *flags(toy, config, tmp_path / "run", log_every=1))
    output = interrupt(command, 6, tmp_path, lambda launcher: ranks_of(launcher)[1].send_signal(signal.SIGUSR1))
    last = read_records(tmp_path / "run/attempts.jsonl")[-1]
    assert (last["end"], last["exit_code"]) == ("PREEMPTED", 75), output[-3000:]
    stopped_at = last["update"]
    assert 6 <= stopped_at < UPDATES
    assert (tmp_path / "run/checkpoints" / f"update-{stopped_at:08d}").is_dir()
    assert not (tmp_path / "run/student").exists()
    resumed = torchrun(2, *flags(toy, config, tmp_path / "run", log_every=1), "--resume")
    assert resumed.returncode == 0, resumed.stdout[-4000:]
    lines = [line for line in metrics(tmp_path / "run") if "loss" in line]
    assert [line["update"] for line in lines] == list(range(1, UPDATES + 1))
    for line in (line for line in metrics(whole) if "loss" in line):
        span = lines[line["update"] - (line["update"] - 1) % 4 - 1 : line["update"]]
        assert line["loss"] == pytest.approx(sum(one["loss"] for one in span) / len(span), rel=1e-12)
    expected, got = (load_file(run / "student/model.safetensors") for run in (whole, tmp_path / "run"))
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_a_stop_inside_a_line_of_metrics_loses_nothing_of_it(
    toy: Toy, config: Path, whole: Path, tmp_path: Path
) -> None:
    """--stop_after ends the first start at some update; the lines are those of the run that never stopped."""
    slow = ["--stop_after", "00:00:01", *flags(toy, config, tmp_path / "run")[1:]]
    for _ in range(12):  # a second is a few updates, or none where the start took all of it
        result = torchrun(2, "train.py", *slow, "--resume")
        last = read_records(tmp_path / "run/attempts.jsonl")[-1]
        if last["end"] == "FINISHED":
            break
        assert last["end"] == "PREEMPTED", result.stdout[-3000:]
        slow[1] = "00:01:00"
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow  # five runs one after the other
def test_another_number_of_ranks_and_micro_batch(toy: Toy, tmp_path: Path) -> None:
    """1 -> 2 -> 4 -> 2 ranks, without dropout: the losses of one rank that never stopped, to rounding."""
    small = ds_config(tmp_path / "small.json", train_micro_batch_size_per_gpu=2)
    config = ds_config(tmp_path / "ds.json")
    common = {"dropout": 0.0, "log_every": 1, "max_updates": 16, "eval_every": 100, "teacher_dtype": "fp32"}
    folder = tmp_path / "run"
    steps = [(1, config, "4"), (2, config, "8"), (4, small, "12"), (2, small, "16")]
    for ranks, ds, until in steps:
        more = ["--resume"] if until != "4" else []
        command = torchrun_command(ranks, *flags(toy, ds, folder, **common), *more)
        if until == "16":
            output = subprocess.run(
                [str(part) for part in command],
                cwd=ROOT,
                env=environment(),
                text=True,
                capture_output=True,
                timeout=200,
            )
            assert output.returncode == 0, output.stderr[-3000:]
            assert "4 ranks x 2 micro-batches x 2" in output.stdout  # what was, against what is
            continue
        interrupt(command, int(until) - 2, tmp_path, lambda launcher: ranks_of(launcher)[0].send_signal(signal.SIGTERM))
        assert read_records(folder / "attempts.jsonl")[-1]["end"] == "PREEMPTED"
    whole = torchrun(1, *flags(toy, config, tmp_path / "whole", **common))
    assert whole.returncode == 0, whole.stdout[-3000:]
    lines, expected = ([line for line in metrics(run) if "loss" in line] for run in (folder, tmp_path / "whole"))
    assert [line["update"] for line in lines] == list(range(1, 17))
    for line, reference in zip(lines, expected, strict=True):
        for name in ("loss", "loss_mlm", "loss_distillation", "loss_cosine", "grad_norm"):
            assert line[name] == pytest.approx(reference[name], rel=2e-5), (line["update"], name)
        assert [line[name] for name in ("tokens", "sequences", "learning_rate")] == [
            reference[name] for name in ("tokens", "sequences", "learning_rate")
        ]


def test_ranks_end_when_their_launcher_is_killed(toy: Toy, config: Path, whole: Path, tmp_path: Path) -> None:
    left: list[psutil.Process] = []

    def kill(launcher: psutil.Process) -> None:
        left.extend(ranks_of(launcher))
        launcher.kill()

    folder = tmp_path / "run"
    interrupt(torchrun_command(2, *flags(toy, config, folder, log_every=1, max_updates=3000)), 6, tmp_path, kill)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert len(left) == 2
    assert not alive
    assert read_records(folder / "attempts.jsonl")[-1]["end"] == "PREEMPTED"
    assert "the launcher is gone" in (folder / "log.txt").read_text()


@pytest.mark.slow  # three starts
def test_the_same_update_failing_again_and_again_is_not_tried_for_ever(toy: Toy, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        interrupt(
            torchrun_command(2, *flags(toy, config, folder, log_every=1, checkpoint_every=100), "--resume"),
            1,
            tmp_path,
            lambda launcher: [process.kill() for process in (launcher, *launcher.children(recursive=True))],
        )
        time.sleep(0.5)
    # Both died somewhere; that it was in the same update is written here, because chance decides it otherwise.
    lines = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    starts = [line for line in lines if "end" not in line]
    ends = [{**start, "end": "KILLED", "exit_code": None, "update": 1} for start in starts]
    journal = "".join(json.dumps(line) + "\n" for pair in zip(starts, ends, strict=True) for line in pair)
    (folder / "attempts.jsonl").write_text(journal)
    result = torchrun(2, *flags(toy, config, folder), "--resume", "--max_crashes", 2)
    assert "exitcode  : 5" in result.stdout, result.stdout[-3000:]
    assert result.stdout.count("error: update 2 has failed 2 times in a row") == 1
    assert not (folder / "student").exists()
    shutil.rmtree(folder)
