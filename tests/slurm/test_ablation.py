"""launcher/ablation.sbatch under a real SLURM of two nodes: a task a cell, one of them queued again, nothing run twice."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Toy
from tests.evaluation.ablation.made import write
from tests.evaluation.ablation.test_running import command, files, is_training
from tests.launch import run
from tests.slurm.cluster import Cluster

CELLS = {"triple_loss": {}, "without_cosine": {"weight_cosine": 0, "max_updates": 150}}
pytestmark = pytest.mark.timeout(1200)


def submit(cluster: Cluster, log: Path, config: Path, array: str) -> str:
    options = [f"--array={array}", f"--output={log}/%a.txt", "--export=ALL,OMP_NUM_THREADS=1"]
    job = cluster.run("sbatch", "--parsable", *options, "launcher/ablation.sbatch", config).strip()
    assert job.isdecimal(), job
    return job


def attempts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run/attempts.jsonl").read_text().splitlines()]


@pytest.mark.slow  # waits for SLURM
def test_an_array_runs_every_cell_once(cluster: Cluster, toy: Toy, tmp_path: Path) -> None:
    train = json.loads(write(toy, tmp_path).read_text())["train"] | {"log_every": 1, "checkpoint_every": 100_000}
    config = write(toy, tmp_path, cells=CELLS, seeds=[0], train=train, launcher=["not", "this"])
    first, second = (tmp_path / f"out/{name}/seed-0" for name in CELLS)
    count = run(command(config, "--count")).stdout.strip()
    job = submit(cluster, tmp_path, config, f"0-{int(count) - 1}")
    deadline = time.monotonic() + 600
    while not is_training(second / "run/metrics.jsonl"):
        assert time.monotonic() < deadline, (tmp_path / "1.txt").read_text()
        time.sleep(0.1)
    cluster.run("scancel", "--signal=USR1", "--batch", f"{job}_1")
    cluster.restart_now(f"{job}_1")
    for task in (0, 1):
        assert cluster.wait(f"{job}_{task}", "COMPLETED")["ExitCode"] == "0:0"
    assert [line["end"] for line in attempts(first) if "end" in line] == ["FINISHED"]
    assert [line["end"] for line in attempts(second) if "end" in line] == ["PREEMPTED", "FINISHED"]
    stopped, resumed = [line["start_update"] for line in attempts(second) if "start_update" in line]
    assert (stopped, resumed > 0) == (0, True)
    (record,) = [json.loads(line) for line in (second / "requeues.jsonl").read_text().splitlines()]
    assert (record["job"], record["exit_code"], record["progress"]) == (f"{job}_1", 75, True)
    assert "2 of 2 finished" in run(command(config, "--table")).stdout
    before = files(tmp_path / "out")
    again = submit(cluster, tmp_path, config, "0-1")
    for task in (0, 1):
        assert cluster.wait(f"{again}_{task}", "COMPLETED")["ExitCode"] == "0:0"
    assert files(tmp_path / "out") == before


def test_what_cannot_be_a_task_is_refused(cluster: Cluster, toy: Toy, tmp_path: Path) -> None:
    job = cluster.run(
        "sbatch", "--parsable", f"--output={tmp_path}/log.txt", "launcher/ablation.sbatch", write(toy, tmp_path)
    ).strip()
    assert cluster.wait(job, "FAILED")["ExitCode"] == "2:0"
    assert "with --array=0-N and the ablation's file alone" in (tmp_path / "log.txt").read_text()
    absent = submit(cluster, tmp_path, tmp_path / "absent.json", "0")
    assert cluster.wait(f"{absent}_0", "FAILED")["ExitCode"] == "2:0"
    assert "error: no ablation at" in (tmp_path / "0.txt").read_text()
