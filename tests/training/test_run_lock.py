"""One run, one writer."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import training.run_lock
from tests.launch import ROOT
from training.run_lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from training.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_job_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        with pytest.raises(ValueError, match=f"is being written by process {first.pid} on .* choose another --output"):
            RunLock(tmp_path, patience=0.3)
        first.kill()


def test_the_lock_of_a_dead_process_is_recovered(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        first.kill()
        first.wait()
    second = RunLock(tmp_path)
    assert f"process {first.pid}" in second.recovered
    second.check()
    second.close()
    third = RunLock(tmp_path)
    assert third.recovered == ""
    third.close()


def test_a_lock_taken_away_is_noticed(tmp_path: Path) -> None:
    """As where this host was cut off from the file system and another one recovered the lock."""
    lock = RunLock(tmp_path)
    (tmp_path / "lock").write_text(json.dumps({"host": "other", "pid": 1, "token": "x"}))
    with pytest.raises(OSError, match="now belongs to process 1 on other"):
        lock.check()


def test_a_holder_elsewhere_whose_heart_beats_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flock does not reach every host on every file system."""
    monkeypatch.setattr(training.run_lock, "_BEATS", 1.0)
    (tmp_path / "lock").write_text(json.dumps({"host": "other", "pid": 1, "job": "17"}))
    beat = tmp_path / "heartbeats/rank_000.json"
    beat.parent.mkdir()
    stop = threading.Event()

    def heart() -> None:
        while not stop.wait(0.2):
            beat.write_text(str(time.time()))

    beating = threading.Thread(target=heart)
    beating.start()
    try:
        with pytest.raises(ValueError, match=r"process 1 on other, SLURM job 17, which is alive"):
            RunLock(tmp_path)
    finally:
        stop.set()
        beating.join()
    assert "other" in RunLock(tmp_path).recovered


def test_a_torn_lock_file_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.run_lock, "_BEATS", 1.0)
    (tmp_path / "lock").write_text('{"host": "ot')
    lock = RunLock(tmp_path)
    assert "died while taking it" in lock.recovered
    lock.check()
    lock.close()
    assert (tmp_path / "lock").read_text() == ""
