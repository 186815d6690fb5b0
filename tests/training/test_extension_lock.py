"""A lock that a killed compilation left behind must not stop the next start, nor may a living one be taken away."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch import run
from training.extension_lock import (
    EXTENSION,
    STALE_AFTER,
    clear_stale_locks,
    extension_folder,
    find_locks,
    remove_stale,
)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Created as torch creates it; old enough to be stale."""
    path = tmp_path / "py311_cpu" / EXTENSION / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    age(path, STALE_AFTER + 60)
    return path


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_an_old_lock_that_nobody_holds_is_stale_and_goes(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = find_locks(tmp_path)
    assert found.is_stale
    clear_stale_locks(tmp_path)
    assert not lock.exists()
    assert f"deleted the stale lock {lock}: 11 minutes old" in capsys.readouterr().out


def test_a_lock_whose_process_lives_is_kept(lock: Path, tmp_path: Path) -> None:
    """torch's own class holds it, in another process."""
    lock.unlink()
    hold = (
        f"from torch.utils.file_baton import FileBaton; b = FileBaton({str(lock)!r}); print(b.try_acquire(), flush=True); "
        "input()"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    age(lock, STALE_AFTER + 60)
    (found,) = find_locks(tmp_path)
    assert found.holder == process.pid
    assert not remove_stale(lock)
    clear_stale_locks(tmp_path)
    assert lock.exists()
    process.kill()
    process.communicate()
    assert find_locks(tmp_path)[0].is_stale


def test_a_young_lock_is_waited_for_until_it_is_stale(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    age(lock, STALE_AFTER - 2)
    started = time.monotonic()
    clear_stale_locks(tmp_path)
    assert 1.5 < time.monotonic() - started < 10
    assert not lock.exists()
    assert capsys.readouterr().out.count("waiting for") == 1


def test_torch_extensions_dir_is_looked_into(lock: Path) -> None:
    assert [found.path for found in find_locks(lock.parent.parent)] == [lock]


def test_ranks_start_where_a_stale_lock_lies(lock: Path) -> None:
    """The whole start, which hung here: DeepSpeed finds no lock, compiles what is not compiled yet, and joins."""
    for built in extension_folder().glob(f"*/{EXTENSION}"):  # a minute less, where some start has compiled it before
        shutil.copytree(built, lock.parent, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock"))
    code = "from training.distributed import start_ranks, leave_ranks; print(start_ranks()); leave_ranks()"
    result = run([sys.executable, "-c", code], TORCH_EXTENSIONS_DIR=str(lock.parent.parent))
    assert result.returncode == 0, result.stdout
    assert "deleted the stale lock" in result.stdout
    assert "num_ranks=1" in result.stdout
