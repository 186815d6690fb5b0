"""The hosts of a hostfile. There is no second machine here: `ssh` is a script of a few lines that keeps the real command's
contract (options, a host, a command; standard input passed on; 255 without a connection) and runs the command here."""

import os
import sys
from pathlib import Path

import pytest

from launcher.checks.finding import FAILED, OK, WARNING
from launcher.checks.hosts import Host, check_host, judge_clock, read_hostfile
from tests.launch import run

SSH = """
while [ "$1" = -o ]; do shift 2; done
host=$1; shift
case $host in
  127.0.0.1) exec sh -c "$*" ;;
  127.0.0.2) echo "Permission denied (publickey)." >&2; exit 255 ;;
  127.0.0.3) echo '{"python": "3.8.1", "torch": "2.11.0", "deepspeed": null, "transformers": "5.3.0", "time": 1000.0}' ;;
  127.0.0.4) exec sleep 60 ;;
esac
"""


@pytest.fixture
def _ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bin" / "ssh"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{SSH}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_a_good_hostfile(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text("# the cluster\nn0 slots=8\n\nn1   slots=4 # a small one\n")
    hosts, (finding,) = read_hostfile(path)
    assert hosts == [Host("n0", 8), Host("n1", 4)]
    assert finding.line == f"ok: hostfile {path}: 2 hosts, 12 ranks"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n0 slots=8\nn1\n", "hostfile:2: 'n1'"),
        ("n0 slot=8\n", "hostfile:1: 'n0 slot=8'"),
        ("n0 slots=0\n", "hostfile:1: 'n0 slots=0'"),
        ("n0 slots=2 n1\n", "hostfile:1"),
        ("n0 slots=8\nn0 slots=8\n", "hostfile:2: 'n0 slots=8' names a host twice"),
        ("# nobody\n", "names no host"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_hostfile_is_told_with_its_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "hostfile"
    if text is not None:
        path.write_text(text)
    _, findings = read_hostfile(path)
    assert {finding.state for finding in findings} == {FAILED}
    assert message in findings[0].found


@pytest.mark.usefixtures("_ssh")
def test_a_host_with_the_same_software_is_ok() -> None:
    software, clock = check_host(Host("127.0.0.1", 2))
    assert software.line.startswith("ok: 127.0.0.1 answers, with Python 3.")
    assert clock.state == OK


@pytest.mark.usefixtures("_ssh")
def test_a_host_that_refuses_is_told_with_its_reason() -> None:
    (finding,) = check_host(Host("127.0.0.2", 2))
    assert finding.state == FAILED
    assert "Permission denied (publickey)." in finding.found


@pytest.mark.usefixtures("_ssh")
def test_other_software_and_another_time_are_told() -> None:
    software, clock = check_host(Host("127.0.0.3", 2))
    assert software.state == clock.state == FAILED
    assert "python 3.8.1 (here 3." in software.found
    assert "deepspeed None (here 0.19" in software.found
    assert "behind" in clock.found


@pytest.mark.usefixtures("_ssh")
def test_a_host_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.checks.hosts.SSH_SECONDS", 1.0)
    (finding,) = check_host(Host("127.0.0.4", 2))
    assert finding.found == "127.0.0.4 did not answer within 1 s"


def test_an_unknown_name_is_told() -> None:
    (finding,) = check_host(Host("no-such-host.invalid", 2))
    assert finding.state == FAILED
    assert "is no known name" in finding.found


def test_without_ssh_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = check_host(Host("127.0.0.1", 1))
    assert finding.found == "no ssh here to ask 127.0.0.1"


def test_clocks_are_judged_by_what_the_answer_proves() -> None:
    judged = [judge_clock("n1", 100.0, there, 103.0) for there in (98.5, 100.5, 105.0, 200.0, 0.0)]
    assert [finding.state for finding in judged] == [WARNING, OK, WARNING, FAILED, FAILED]
    assert judged[2].found == "the clock of n1 is at least 2.0 s ahead"


@pytest.mark.usefixtures("_ssh")
def test_the_command_asks_every_host(tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("127.0.0.1 slots=2\n127.0.0.2 slots=2\n")
    result = run([sys.executable, "-m", "launcher.doctor", "--hostfile", hostfile, "--output", tmp_path])
    assert result.returncode == 1
    assert "ok: 127.0.0.1 answers" in result.stdout
    assert "FAILED: 127.0.0.2 does not run our Python" in result.stdout
