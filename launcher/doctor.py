"""Before a run is started or queued: is this machine, and are the others, fit for it? Everything is really tried.

    python -m launcher.doctor
    python -m launcher.doctor --hostfile hostfile --output runs/wiki

A line for each check: ok, warning, or FAILED with what was found, why it matters and what to do. Exit code 1 if any FAILED.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """What to look at besides this machine."""

    hostfile: str = ""
    """Hosts of the run, a line `name slots=N` each. They are asked by ssh, without a password."""
    output: str = "runs"
    """Run folder to be: its disk is tried. It is not created."""


if __name__ == "__main__":  # before the heavy imports, so that --help and a mistyped flag answer at once
    CONFIG = parse(DoctorConfig, sys.argv[1:], __doc__ or "", prog="python -m launcher.doctor")
    if importlib.util.find_spec("torch") is None:
        print("FAILED: no torch - nothing runs without it, this command included - pip install -r requirements.txt")
        sys.exit(1)

from launcher.checks import hosts, machine, software, talk
from launcher.checks.finding import FAILED, WARNING, Finding, failed

Check = Callable[[], Finding | list[Finding]]


def findings(config: DoctorConfig) -> Iterator[Finding]:
    """Those of every check, as they are made; one that breaks is a finding too."""
    import torch

    gpus = torch.cuda.device_count()
    checks: list[Check] = [
        software.check_compiler,
        software.check_python_and_torch,
        software.check_deepspeed,
        software.check_native_kernels,
        machine.check_accelerators,
        lambda: software.check_triton(gpus > 0),
        software.check_apex,
        software.check_transformers,
        machine.check_shared_memory,
        machine.check_open_files,
        lambda: machine.check_disk(Path(config.output).absolute()),
        lambda: talk.check_ranks("gloo"),
        *([lambda: talk.check_ranks("nccl")] if gpus > 1 else []),
    ]
    for check in checks:
        try:
            found = check()
        except Exception as error:
            name = getattr(check, "__name__", "a check")
            found = failed(f"{name} broke: {type(error).__name__}: {error}", "it could not be told", "see the message")
        yield from [found] if isinstance(found, Finding) else found
    if config.hostfile:
        named, problems = hosts.read_hostfile(Path(config.hostfile))
        yield from problems
        with ThreadPoolExecutor(32) as pool:  # 64 hosts that do not answer would take half an hour one by one
            for lines in pool.map(hosts.check_host, named):
                yield from lines


def main(config: DoctorConfig) -> int:
    counts = {WARNING: 0, FAILED: 0}
    for finding in findings(config):
        print(finding.line, flush=True)
        if finding.state in counts:
            counts[finding.state] += 1
    print(f"{counts[FAILED]} failed, {counts[WARNING]} warnings")
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main(CONFIG))
