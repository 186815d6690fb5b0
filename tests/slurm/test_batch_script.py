"""launcher/slurm.sbatch under a real SLURM of two nodes: how a job ends, and how it goes on."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Toy
from tests.launch import ds_config, metrics, torchrun
from tests.slurm.cluster import Cluster
from training.manifest import check_file, read_manifest
from training.rendezvous import first_node

TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]
MIDDLE = 30
"""Updates after which a run is disturbed; none is saved before by itself."""
pytestmark = pytest.mark.timeout(1200)  # starts that wait for each other, on a machine that may be busy
Flags = Callable[..., list[object]]


@pytest.fixture
def flags(toy: Toy, tmp_path: Path) -> Flags:
    """Of train.py, for a run in tmp_path/`name` that logs every update."""

    def make(name: str, **more: object) -> list[object]:
        values = {
            "ds_config": ds_config(tmp_path / "ds.json"),
            "data": toy.train,
            "teacher": toy.teacher,
            "max_length": 40,
            "max_updates": 300,
            "log_every": 1,
            "checkpoint_every": 100_000,
            "output": tmp_path / name,
            **more,
        }
        return [*(part for flag, value in values.items() for part in (f"--{flag}", value)), "--no_check_teacher"]

    return make


def updates(run: Path) -> list[int]:
    return [line["update"] for line in metrics(run) if "loss" in line]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def weights(run: Path) -> bytes:
    return (run / "student/model.safetensors").read_bytes()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_update(cluster: Cluster, job: str, run: Path, update: int = MIDDLE) -> None:
    deadline = time.monotonic() + 400
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < update:
        assert cluster.show(job)["JobState"] in ("PENDING", "CONFIGURING", "RUNNING")
        assert time.monotonic() < deadline
        time.sleep(0.2)


def check_equal_to_an_undisturbed_run(run: Path, flags: list[object]) -> None:
    result = torchrun(2, "train.py", *flags, timeout=500)
    assert result.returncode == 0, result.stdout[-4000:]
    undisturbed = Path(str(flags[flags.index("--output") + 1]))
    assert updates(run) == list(range(1, len(updates(undisturbed)) + 1))
    assert losses(run) == losses(undisturbed)
    assert weights(run) == weights(undisturbed)


@pytest.mark.parametrize("compact", ["n[0-1]", "n1", "n[00-11,17]", "login,n[0-1]", "r[2-4]n[08-11]", "a-[3,1],b"])
def test_first_node_is_that_of_slurm(cluster: Cluster, compact: str) -> None:
    assert first_node(compact) == cluster.run("scontrol", "show", "hostnames", compact).split()[0]


def test_two_nodes_train_together(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    run = tmp_path / "slurm"
    job = cluster.submit(TWO_NODES, flags("slurm", max_updates=20), tmp_path / "log.txt")
    shown = cluster.wait(job, "COMPLETED")
    assert (shown["ExitCode"], shown["NodeList"]) == ("0:0", "n[0-1]")
    assert json.loads((run / "config.json").read_text())["num_ranks"] == 2
    check_equal_to_an_undisturbed_run(run, flags("torchrun", max_updates=20))


@pytest.mark.slow  # waits for SLURM
def test_a_warning_saves_and_queues_again_and_changes_nothing(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    """SIGUSR1 to the batch shell, as --signal sends it before the time limit."""
    run = tmp_path / "slurm"
    job = cluster.submit(TWO_NODES, flags("slurm"), tmp_path / "log.txt")
    wait_for_update(cluster, job, run)
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    cluster.restart_now(job)
    shown = cluster.wait(job, "COMPLETED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("1", "0:0")
    (record,) = lines(run / "requeues.jsonl")
    assert (record["job"], record["restart"], record["exit_code"], record["progress"]) == (job, 0, 75, True)
    assert (tmp_path / "log.txt").read_text().count("queued again") == 1
    check_equal_to_an_undisturbed_run(run, flags("undisturbed"))


@pytest.mark.slow
def test_a_job_out_of_time_goes_on_where_it_was(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    run = tmp_path / "slurm"
    options = [*TWO_NODES, "--time=600", "--signal=B:USR1@110"]
    job = cluster.submit(options, flags("slurm", max_updates=4000), tmp_path / "log.txt")
    wait_for_update(cluster, job, run)
    hours, minutes, _ = map(int, cluster.show(job)["RunTime"].split(":"))
    cluster.run("scontrol", "update", f"jobid={job}", f"TimeLimit={60 * hours + minutes + 2}")  # 60 to 120 s left
    cluster.restart_now(job, TimeLimit=600)
    shown = cluster.wait(job, "COMPLETED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("1", "0:0")
    assert [record["end"] for record in lines(run / "attempts.jsonl") if "end" in record] == ["PREEMPTED", "FINISHED"]
    assert updates(run) == list(range(1, 4001))


@pytest.mark.slow  # waits for SLURM
def test_a_cancelled_job_saves_and_stays_cancelled(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    run = tmp_path / "slurm"
    job = cluster.submit(TWO_NODES, flags("slurm"), tmp_path / "log.txt")
    wait_for_update(cluster, job, run)
    cluster.run("scancel", job)
    shown = cluster.wait(job, "CANCELLED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("0", "75:0")
    stopped = updates(run)[-1]
    (checkpoint,) = (run / "checkpoints").glob("update-*")
    manifest = read_manifest(checkpoint)
    assert manifest.update == stopped >= MIDDLE
    for name, facts in manifest.files.items():
        check_file(checkpoint, name, facts)
    again = cluster.submit(TWO_NODES, flags("slurm"), tmp_path / "log.txt")
    cluster.wait(again, "COMPLETED")
    assert f"update-{stopped:08d}" in (tmp_path / "log.txt").read_text()
    assert updates(run) == list(range(1, 301))


@pytest.mark.slow
def test_a_killed_rank_costs_the_updates_since_the_last_checkpoint(
    cluster: Cluster, flags: Flags, tmp_path: Path
) -> None:
    run = tmp_path / "slurm"
    job = cluster.submit(TWO_NODES, flags("slurm", checkpoint_every=50), tmp_path / "log.txt")
    wait_for_update(cluster, job, run, 120)
    os.kill(json.loads((run / "heartbeats/rank_001.json").read_text())["pid"], signal.SIGKILL)
    cluster.restart_now(job)
    shown = cluster.wait(job, "COMPLETED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("1", "0:0")
    (record,) = lines(run / "requeues.jsonl")
    assert record["exit_code"] == 128 + signal.SIGKILL
    assert record["checkpoint"] >= "update-00000100"
    check_equal_to_an_undisturbed_run(run, flags("undisturbed", checkpoint_every=50))


def test_a_job_without_progress_is_not_queued_for_ever(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    """A broken installation: Python ends with 1 as soon as torch is imported, every time."""
    run = tmp_path / "slurm"
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    options = [*TWO_NODES, f"--export=ALL,PYTHONPATH={tmp_path}"]
    job = cluster.submit(options, flags("slurm"), tmp_path / "log.txt")
    for restart in (1, 2):
        cluster.restart_now(job, restart)
    shown = cluster.wait(job, "FAILED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("2", "1:0")
    records = lines(run / "requeues.jsonl")
    assert [(record["restart"], record["progress"]) for record in records] == [(0, False), (1, False), (2, False)]
    assert "3 starts in a row made no new checkpoint after 'none'" in (tmp_path / "log.txt").read_text()


def test_bad_input_is_not_tried_again(cluster: Cluster, flags: Flags, tmp_path: Path) -> None:
    job = cluster.submit(TWO_NODES, flags("slurm", data=tmp_path / "absent"), tmp_path / "log.txt")
    shown = cluster.wait(job, "FAILED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("0", "2:0")
    log = (tmp_path / "log.txt").read_text()
    assert log.count("error: no corpus") == 1


def test_a_job_that_could_not_find_its_run_again_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit([], ["--ds_config", "ds_configs/zero2_cpu.json"], tmp_path / "log.txt")
    assert cluster.wait(job, "FAILED")["ExitCode"] == "2:0"
    assert "with --output runs/NAME" in (tmp_path / "log.txt").read_text()
