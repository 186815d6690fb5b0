"""Every check of the doctor, on what is fine here and on the broken thing itself, made for real."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.checks import machine, software, talk
from launcher.checks.finding import FAILED, OK, WARNING
from tests.launch import ROOT, run

IS_ROOT = os.geteuid() == 0


def command(path: Path, script: str) -> None:
    """An executable in a folder that goes on PATH."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_compiler_compiles_and_a_broken_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.check_compiler().state == OK
    command(tmp_path / "broken", "echo 'error: cc1plus is missing' >&2; exit 1")
    monkeypatch.setenv("CXX", str(tmp_path / "broken"))
    assert software.check_compiler().state == FAILED
    assert "cc1plus is missing" in software.check_compiler().line
    monkeypatch.setenv("CXX", "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.check_compiler().found == "no C++ compiler"


def test_versions_are_judged() -> None:
    """By number: one machine cannot have them all installed."""
    assert software.check_python_and_torch().state == OK
    judged = {
        version: software.judge_torch(version).state for version in ((2, 9, 1), (2, 10, 0), (2, 12, 1), (2, 14, 0))
    }
    assert list(judged.values()) == [FAILED, WARNING, OK, WARNING]
    assert software.check_deepspeed().state == OK
    states = [software.judge_deepspeed(version).state for version in ((0, 19, 4), (0, 19, 5), (0, 20, 0))]
    assert states == [FAILED, OK, FAILED]
    assert software.check_transformers().state == OK
    assert [software.judge_transformers(version).state for version in ((5, 2, 9), (5, 3, 0), None)] == [
        FAILED,
        OK,
        FAILED,
    ]


def test_versions_are_read_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "deepspeed-0.18.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.18.2+cu130\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert software.check_deepspeed().line.startswith("FAILED: DeepSpeed 0.18.2 - ")


def test_native_kernels_that_cannot_be_built_are_told(tmp_path: Path) -> None:
    code = "from launcher.checks.software import check_native_kernels as c; print(c().line)"
    (tmp_path / "file").touch()
    result = run([sys.executable, "-c", code], DISTILLERY_CACHE=str(tmp_path / "file" / "below"))
    assert result.stdout.startswith("warning: our C++ kernels cannot run: ")


def test_apex_of_another_project_is_told_from_nvidias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert software.check_apex().found.startswith("no apex")
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").write_text("raise AssertionError('must not be run')")
    assert software.check_apex().state == WARNING
    assert "is not NVIDIA's" in software.check_apex().found
    (tmp_path / "apex/normalization").mkdir()
    assert "without its CUDA extensions" in software.check_apex().found
    (tmp_path / "fused_layer_norm_cuda.py").touch()
    assert software.check_apex().line == "ok: NVIDIA's apex with fused_layer_norm_cuda"


def test_gpus_that_torch_cannot_use_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi's own contract: one line a GPU on standard output."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPUs here")
    assert [finding.state for finding in machine.check_accelerators()] == [OK]
    command(tmp_path / "nvidia-smi", "echo NVIDIA H200; echo NVIDIA H200")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (finding,) = machine.check_accelerators()
    assert finding.line.startswith("FAILED: 2 GPUs (NVIDIA H200) that torch cannot use: torch is built for CPUs alone")


def test_triton_is_missed_only_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.check_triton(has_cuda=True).found.startswith("Triton 3.")
    monkeypatch.setattr(sys, "path", [])
    assert software.check_triton(has_cuda=True).state == WARNING
    assert software.check_triton(has_cuda=False).state == OK


def test_too_little_shared_memory_fails(tmpfs: Path) -> None:
    assert machine.check_shared_memory().state in (OK, WARNING)
    assert machine.check_shared_memory(tmpfs).line.startswith(f"FAILED: {tmpfs}: 2 MiB, 2 free - NCCL takes some MiB")
    assert machine.check_shared_memory(tmpfs / "none").state == FAILED


def test_few_open_files_fail() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    states = []
    try:
        for limit in (512, 2048, hard):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            states.append(machine.check_open_files().state)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert states == [FAILED, WARNING, OK if hard >= machine.ENOUGH_FILES else WARNING]


def test_a_full_disk_fails(tmpfs: Path) -> None:
    (tmpfs / "filler").write_bytes(bytes(int(1.5 * 2**20)))
    (finding,) = machine.check_disk(tmpfs / "run")
    assert finding.state == FAILED
    assert "No space left on device" in finding.found
    (tmpfs / "filler").unlink()
    space, lock = machine.check_disk(tmpfs / "run")
    assert (space.state, lock.line) == (FAILED, "ok: flock works there")  # the probe fits, a run would not
    assert not list(tmpfs.iterdir())


def test_a_read_only_disk_fails(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    (finding,) = machine.check_disk(tmpfs / "run")
    assert "Read-only file system" in finding.found


def test_a_good_disk_is_left_as_it_was(tmp_path: Path) -> None:
    findings = machine.check_disk(tmp_path / "runs" / "x")
    assert findings[1].line == "ok: flock works there"
    assert findings[0].state != FAILED
    assert not list(tmp_path.iterdir())


def test_two_ranks_talk_or_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert talk.check_ranks("gloo").state == OK
    assert talk.check_ranks("gloo", timeout=0.2).found.endswith("within 0 s")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none7")
    finding = talk.check_ranks("gloo")
    assert finding.state == FAILED
    assert "none7" in finding.found


def test_the_command_ends_with_1_where_something_failed(tmp_path: Path) -> None:
    """And says so once for each line; on a good machine with 0."""
    good = run([sys.executable, "-m", "launcher.doctor", "--output", tmp_path / "run"])
    assert good.returncode == (1 if "FAILED" in good.stdout else 0), good.stdout
    assert good.stdout.count("\n") >= 13
    assert not (tmp_path / "run").exists()
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("n0\n")
    bad = run([sys.executable, "-m", "launcher.doctor", "--output", tmp_path, "--hostfile", hostfile])
    assert bad.returncode == 1
    assert f"FAILED: {hostfile}:1: 'n0' - " in bad.stdout
    assert not bad.stdout.splitlines()[-1].startswith("0 failed")


def test_without_torch_it_still_answers(tmp_path: Path) -> None:
    """An interpreter of its own, with nothing but the command line's parser."""
    site = tmp_path / "site"
    packages = Path(shutil.__file__).parent  # the standard library stays; the virtual environment's packages do not
    assert packages.is_dir()
    import tyro

    site.mkdir()
    for name in ("tyro", "docstring_parser", "typing_extensions", "typing_extensions.py", "typeguard", "rich"):
        source = Path(tyro.__file__).parent.parent / name
        if source.exists():
            (site / name).symlink_to(source)
    interpreter = [sys.executable, "-S", "-m", "launcher.doctor"]
    result = run(interpreter, PYTHONPATH=f"{ROOT}:{site}")
    assert result.returncode == 1, result.stdout
    assert result.stdout.startswith("FAILED: no torch"), result.stdout
