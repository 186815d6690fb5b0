"""The hosts of a hostfile: well written, known by name, answering, with the same software and the same time."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from launcher.checks.finding import Finding, failed, ok, warning

SSH_SECONDS = 30.0
"""For a host to answer: connecting (10) and starting Python there, perhaps from a slow shared disk."""
SKEW_WARNING, SKEW_FAILED = 1.0, 30.0
"""Seconds between two clocks. Heartbeats and locks of all hosts are judged by their age."""
PACKAGES = ("torch", "deepspeed", "transformers")
REMOTE = f"""
import time; now = time.time()
import json, sys, importlib.metadata as m
def v(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps(dict({{n: v(n) for n in {PACKAGES!r}}}, python=sys.version.split()[0], time=now)))
"""


class Host(NamedTuple):
    name: str
    slots: int


def read_hostfile(path: Path) -> tuple[list[Host], list[Finding]]:
    """Lines `name slots=N`, comments and empty lines; a finding for each line that DeepSpeed would misread or refuse."""
    why, action = "DeepSpeed would refuse the file or place ranks wrongly", "one line a host: NAME slots=N"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [], [failed(f"hostfile {path} cannot be read: {error}", why, action)]
    hosts: list[Host] = []
    findings = []
    for number, text in enumerate(lines, 1):
        words = text.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}: {text.strip()!r}"
        slots = words[1].removeprefix("slots=") if len(words) == 2 and words[1].startswith("slots=") else ""
        if not slots.isdecimal() or int(slots) < 1:
            findings.append(failed(where, why, action))
        elif words[0] in {host.name for host in hosts}:
            findings.append(failed(f"{where} names a host twice", why, "add its slots up in one line"))
        else:
            hosts.append(Host(words[0], int(slots)))
    if not hosts and not findings:
        findings.append(failed(f"hostfile {path} names no host", why, action))
    if not findings:
        findings.append(ok(f"hostfile {path}: {len(hosts)} hosts, {sum(host.slots for host in hosts)} ranks"))
    return hosts, findings


def check_host(host: Host) -> list[Finding]:
    """Name, answer, software and clock of one host."""
    try:
        socket.getaddrinfo(host.name, None)
    except OSError as error:
        why = "no rank could be started there"
        return [failed(f"{host.name} is no known name ({error})", why, "correct the hostfile, /etc/hosts or the DNS")]
    before = time.time()
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    command = ["ssh", *options, host.name, f"{sys.executable} -"]
    why = "the launcher starts ranks by ssh without a password"
    action = f"try: ssh -o BatchMode=yes {host.name} {sys.executable} --version"
    try:
        result = subprocess.run(command, input=REMOTE, capture_output=True, text=True, timeout=SSH_SECONDS)
    except FileNotFoundError:
        return [failed(f"no ssh here to ask {host.name}", why, "install openssh-client, or start with srun or mpirun")]
    except subprocess.TimeoutExpired:
        return [failed(f"{host.name} did not answer within {SSH_SECONDS:.0f} s", why, action)]
    after = time.time()
    try:
        answer = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        return [failed(f"{host.name} does not run our Python: {reason}", why, action)]
    return [judge_software(host.name, answer), judge_clock(host.name, before, answer["time"], after)]


def judge_software(name: str, answer: dict[str, object]) -> Finding:
    """Against the versions here, asked by the same program."""
    here = json.loads(subprocess.run([sys.executable, "-c", REMOTE], capture_output=True, text=True, check=True).stdout)
    other = [f"{key} {answer[key]} (here {here[key]})" for key in ("python", *PACKAGES) if answer[key] != here[key]]
    if other:
        why = "ranks of different software hang or differ in their results"
        return failed(f"{name} has {', '.join(other)}", why, "install the same requirements.txt on every host")
    return ok(f"{name} answers, with Python {here['python']}, torch {here['torch']} and DeepSpeed {here['deepspeed']}")


def judge_clock(name: str, before: float, there: float, after: float) -> Finding:
    """Its clock was read between our two readings; what lies outside is skew."""
    skew = max(before - there, there - after, 0.0)
    found = f"the clock of {name} is at least {skew:.1f} s {'behind' if there < before else 'ahead'}"
    why, action = "heartbeats and locks are judged by their age", f"start chrony or ntpd on {name}"
    if skew > SKEW_FAILED:
        return failed(found, why, action)
    if skew > SKEW_WARNING:
        return warning(found, why, action)
    return ok(f"the clock of {name} agrees to {max(after - there, there - before):.1f} s")
