"""A few seconds of what COUNTS.md has at length, always the same inputs; and the limits do limit."""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.target import MOST_MEMORY, MOST_SECONDS, Folder, pack, unpack
from tests.fuzz.targets import TARGETS
from tests.launch import ROOT

INPUTS = 1_000


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("engine", ["structured", "coverage"])
def test_damaged_files_are_refused_by_name_or_read_right(engine: str, target: str, tmp_path: Path) -> None:
    """In a process of its own, because a crash of native code is among the things looked for."""
    if engine == "coverage" and not importlib.util.find_spec("atheris"):
        pytest.skip("atheris is not installed: it exists for CPython on Linux alone")
    options = ["--target", target, "--inputs", str(INPUTS), "--seed", "7"]
    if engine == "coverage":
        options += ["--keep", str(tmp_path)]
    command = [sys.executable, "-m", f"tests.fuzz.{engine}", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-5000:]
    found = re.search(rf"{target}: ([\d,]+) inputs, ([\d,]+) accepted", ended.stdout)
    assert found is not None, ended.stdout
    inputs, accepted = (int(number.replace(",", "")) for number in found.groups())
    assert inputs >= INPUTS
    assert 0 < accepted < inputs


def allocate(data: bytes) -> bool:
    return bool(np.ones(MOST_MEMORY + 1, dtype=np.uint8).any())


def warn(data: bytes) -> bool:
    return bool(np.int32(2**31 - 1) + np.int32(1))


def dawdle(data: bytes) -> bool:
    end = time.process_time() + MOST_SECONDS + 0.1
    while time.process_time() < end:
        pass
    return True


@pytest.mark.parametrize(
    ("run", "error"), [("allocate", "MemoryError"), ("warn", "FloatingPointError"), ("dawdle", "AssertionError")]
)
def test_what_the_limits_are_for(run: str, error: str) -> None:
    """In a process of its own: this one may hold gigabytes that were freed, and would find room in them."""
    script = (
        f"from tests.fuzz.test_fuzz import {run}; from tests.fuzz.target import Runner, Target, limited\n"
        f"with limited():\n    Runner(Target(run={run}, seeds=[]))(b'')"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1
    assert error in ended.stderr.splitlines()[-1]


def test_a_refusal_must_name_a_file() -> None:
    folder = Folder()

    def refuse(message: str) -> None:
        raise ValueError(message)

    assert folder.attempt(lambda: refuse(f"{folder.path}/x.idx is damaged")) is None
    with pytest.raises(AssertionError, match="names no file"):
        folder.attempt(lambda: refuse("something is damaged"))
    with pytest.raises(AssertionError, match="fills the screen"):
        folder.attempt(lambda: refuse(f"{folder.path}" * 1000))
    with pytest.raises(KeyError):
        folder.attempt(lambda: {}["x"])


def test_any_bytes_are_an_input() -> None:
    assert unpack(pack([b"a", b"", b"bc"]), 3) == [b"a", b"", b"bc"]
    assert unpack(b"\xff\xff\xff\xffabc", 2) == [b"abc", b""]
