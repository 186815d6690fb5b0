"""Signals, clocks and launchers, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.launch import ROOT, environment, start
from training.lifecycle import parse_duration

WAIT = """
import ctypes, sys, threading, time
from training.lifecycle import StopRequest
stop = StopRequest()
stop.stop_after(float(sys.argv[1]))
if sys.argv[2] == "deferred":
    stop.defer()
print("ready", flush=True)
sleep = ctypes.CDLL(None).usleep if sys.argv[3] == "in C" else lambda micro: time.sleep(micro / 1e6)
started = time.monotonic()
while not stop.is_asked() and time.monotonic() - started < 20:
    sleep(200_000)
print(stop.reason, flush=True)
"""


def begin(
    seconds: float = 0, deferred: bool = True, where: str = "in Python", script: str = WAIT, **more: str
) -> subprocess.Popen[str]:
    process = start([sys.executable, "-c", script, seconds, "deferred" if deferred else "at once", where], **more)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def rest(process: subprocess.Popen[str]) -> str:
    """What it prints from here on; it ends."""
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait(timeout=10)
    return said


@pytest.mark.parametrize("where", ["in Python", "in C"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_a_request(number: signal.Signals, where: str) -> None:
    process = begin(where=where)
    process.send_signal(number)
    assert rest(process) == f"{number.name}\n"
    assert process.returncode == 0


def test_a_second_interrupt_stops_at_once_even_a_thread_that_never_comes_back() -> None:
    stuck = (
        "import os; ctypes.CDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)"  # taken up after a signal
    )
    script = WAIT.replace("while not", f"{stuck}\nwhile not")
    process = begin(where="in C", script=script)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "second SIGINT" in rest(process)
    assert process.returncode == 130


def test_before_training_there_is_nothing_to_save() -> None:
    process = begin(deferred=False)
    process.send_signal(signal.SIGTERM)
    assert "nothing to save" in rest(process)
    assert process.returncode == 75


def test_the_allotted_time() -> None:
    assert rest(begin(seconds=0.5)) == "the allotted time is over\n"
    ends_soon = begin(SLURM_JOB_END_TIME=str(int(time.time()) + 60))  # less than what is kept for saving
    assert rest(ends_soon) == "the allotted time is over\n"
    later = begin(SLURM_JOB_END_TIME=str(int(time.time()) + 3600))
    time.sleep(0.6)
    assert later.poll() is None
    later.kill()
    later.communicate()


@pytest.mark.parametrize("text", ["90", "1:30", "aa:bb:cc", "1:2:3:4", "-1:00:00"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected HH:MM:SS"):
        parse_duration(text)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("", "00:01:30", "100:00:00")] == [0.0, 90.0, 360_000.0]


def test_the_death_of_a_launcher_above_the_parent_is_noticed(tmp_path: Path) -> None:
    """deepspeed starts a launch.py, which starts the ranks: killed, only the first is gone."""
    (tmp_path / "wait.py").write_text(WAIT)
    middle = (
        f"import subprocess, sys; subprocess.run([sys.executable, {str(tmp_path / 'wait.py')!r}, '0', 'deferred', 'x'])"
    )
    top = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {middle!r}, 'deepspeed.launcher.launch'])"
    process = subprocess.Popen(
        [sys.executable, "-c", top, "deepspeed"], cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.stdout.readline() == "the launcher is gone\n"
    psutil.wait_procs(below, timeout=10)
    assert not [child for child in below if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert os.getpid() not in [child.pid for child in below]
