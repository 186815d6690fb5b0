"""launcher/slurm.sbatch under a real SLURM of two nodes."""

import json
from pathlib import Path

import pytest

from tests.conftest import Toy
from tests.launch import ds_config, metrics, torchrun
from tests.slurm.cluster import Cluster
from training.rendezvous import first_node

TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]


def flags(toy: Toy, folder: Path, name: str, **more: object) -> list[object]:
    """Of train.py, for a run in `folder`/`name` that logs every update."""
    values = {
        "ds_config": ds_config(folder / "ds.json"),
        "data": toy.train,
        "teacher": toy.teacher,
        "max_length": 40,
        "max_updates": 20,
        "log_every": 1,
        "checkpoint_every": 10_000,
        "output": folder / name,
        **more,
    }
    return [*(part for flag, value in values.items() for part in (f"--{flag}", value)), "--no_check_teacher"]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder) if "loss" in line]


@pytest.mark.parametrize("compact", ["n[0-1]", "n1", "n[00-11,17]", "login,n[0-1]", "r[2-4]n[08-11]", "a-[3,1],b"])
def test_first_node_is_that_of_slurm(cluster: Cluster, compact: str) -> None:
    assert first_node(compact) == cluster.run("scontrol", "show", "hostnames", compact).split()[0]


def test_two_nodes_train_together(cluster: Cluster, toy: Toy, tmp_path: Path) -> None:
    job = cluster.submit(TWO_NODES, flags(toy, tmp_path, "slurm"), tmp_path / "log.txt")
    shown = cluster.wait(job, "COMPLETED")
    assert (shown["ExitCode"], shown["NodeList"]) == ("0:0", "n[0-1]")
    config = json.loads((tmp_path / "slurm/config.json").read_text())
    assert config["num_ranks"] == 2
    result = torchrun(2, "train.py", *flags(toy, tmp_path, "torchrun"))
    assert result.returncode == 0, result.stdout[-4000:]
    assert losses(tmp_path / "slurm") == losses(tmp_path / "torchrun")
    assert len(losses(tmp_path / "slurm")) == 20
