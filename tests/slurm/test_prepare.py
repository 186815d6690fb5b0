"""data.prepare under a real SLURM: srun with PMIx starts the ranks of MPI; without it nothing is done twice by mistake."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from data.sidecar import file_facts
from tests.data.helpers import random_texts
from tests.launch import ROOT, run
from tests.slurm.cluster import Cluster


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """Of the command, but for --output."""
    source = tmp_path / "a.txt"
    source.write_text("\n\n".join(text.replace("\n", " ") for text in random_texts(500)))
    return [sys.executable, "-m", "data.prepare", "--input", source, source, "--train_vocab", 400, "--output"]


def srun(cluster: Cluster, mpi: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Two tasks on one node: two nodes of one host would share PMIx's sockets, which only this test bench does."""
    parts = ["srun", "-N1", "-n2", f"--mpi={mpi}", *(str(part) for part in command)]
    return subprocess.run(
        parts, cwd=ROOT, env=cluster.environment(), text=True, capture_output=True, timeout=120, check=False
    )


def test_ranks_of_srun_write_the_same_bytes(cluster: Cluster, arguments: list[object], tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libpmix.so")
    except OSError:
        pytest.skip("no libpmix.so for SLURM's plugin (apt-get install libpmix-dev)")
    done = srun(cluster, "pmix", *arguments, tmp_path / "srun")
    assert done.returncode == 0, done.stderr
    assert run([*arguments, tmp_path / "alone"]).returncode == 0
    files = [[file_facts(tmp_path / f"{name}{end}") for end in (".bin", ".idx")] for name in ("srun", "alone")]
    assert files[0] == files[1]


def test_tasks_that_mpi_does_not_connect_are_refused(cluster: Cluster, arguments: list[object], tmp_path: Path) -> None:
    done = srun(cluster, "none", *arguments, tmp_path / "x")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "2 processes were started, but MPI sees each of them alone" in lines[0]
    assert not list(tmp_path.glob("x*"))
