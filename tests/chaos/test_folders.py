"""Two jobs on one folder, and locks of jobs that are gone."""

import json
import socket
from pathlib import Path

import pytest

from tests.chaos.conftest import Record
from tests.chaos.harness import finish, last_end, launch, start, wait_for
from tests.chaos.proof import Proof, assert_same_run
from training.lifecycle import ExitCode


@pytest.mark.slow
def test_a_second_job_on_the_folder_is_refused(proof: Proof, record: Record, tmp_path: Path) -> None:
    """While the first waits inside an update; then it goes on, unharmed."""
    folder, notes = tmp_path / "run", tmp_path / "first"
    fault = {"target": "nobody", "phase": "forward", "update": 4, "rank": 0}
    first = start("torchrun", proof.flags(folder, hang_timeout=600), notes, fault)
    wait_for(lambda: (notes / "fired").exists() or first.poll() is not None)
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    second = launch("torchrun", [*proof.flags(folder), "--resume"], tmp_path / "second")
    assert set(second.rank_codes.values()) == {ExitCode.BAD_INPUT}, second
    assert "is being written by process" in second.output
    assert {path: path.read_bytes() for path in before} == before
    (notes / "go").touch()
    outcome = finish(first, notes)
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    assert last_end(folder) == "FINISHED"
    assert_same_run(folder, proof.whole)
    record(
        "a second job on the folder, torchrun", "refused; the first unharmed", f"{second.launcher_code} (ranks 2, 2)", 0
    )


@pytest.mark.matrix
def test_the_lock_of_a_job_that_is_gone(proof: Proof, record: Record, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    holder = {"host": socket.gethostname(), "pid": 2**22 + 1, "token": "gone", "job": "77"}
    (folder / "lock").write_text(json.dumps(holder) + "\n")
    outcome = launch("torchrun", proof.flags(folder), tmp_path / "notes")
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    assert "was left locked by process 4194305" in outcome.output
    assert "SLURM job 77" in outcome.output
    assert_same_run(folder, proof.whole)
    record("the lock of a job that is gone, torchrun", "taken over, and said so", outcome.launcher_code, 0)
