"""Start the real launchers on two ranks, wait, and collect what is left: exit codes, journal, processes, checkpoints."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.launch import ROOT, environment, free_port
from training.attempts import read_records
from training.resume_point import checkpoint_folders

CLUSTER: dict[str, str] = {}
"""Environment of the SLURM that srun asks, once there is one."""
VICTIM = "tests/chaos/victim.py"
NUM_RANKS = 2
STARTING = 400.0  # seconds for a run to reach its fault, or its end: other programs may use the processors too
LIMIT = (
    90.0  # seconds from the fault to the end of the launcher: --hang_timeout, and 30 s that some give a stopped rank
)
ORPHANS = 30.0  # seconds after the launcher's end in which every rank must have gone too
_COMMITTED = re.compile(r"checkpoint of update ([0-9]+): .* committed")
_UPDATE = re.compile(r"^update ([0-9]+)/", re.MULTILINE)


def launch_command(launcher: str, script: str = VICTIM) -> list[object]:
    """The command before the flags of train.py; "python" is one rank without a launcher."""
    if launcher == "python":
        return [sys.executable, script]
    if launcher == "deepspeed":
        program = Path(sys.executable).with_name(
            "deepspeed"
        )  # whose first line may name the interpreter by another path
        return [sys.executable, program, "--num_gpus", NUM_RANKS, "--master_port", free_port(), script]
    if launcher == "torchrun":
        common = ["--nproc_per_node", NUM_RANKS, "--master_port", free_port()]
        return [sys.executable, "-m", "torch.distributed.run", *common, script]
    if launcher == "mpirun":
        options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
        return ["mpirun", *options, "-n", NUM_RANKS, sys.executable, script]
    assert launcher == "srun"
    return ["srun", "--nodes=2", "--ntasks=2", "--kill-on-bad-exit=0", "--wait=60", sys.executable, script]


@dataclass
class Outcome:
    """What a start of a run left behind."""

    launcher_code: int | None
    """None where it had to be ended at the limit; negative where a signal ended it."""
    rank_codes: dict[int, int | None]
    """None where the rank was killed."""
    seconds: float
    """From the fault to the launcher's end."""
    output: str
    has_fired: bool
    orphans: list[str] = field(default_factory=list)
    """Processes that were still there `ORPHANS` seconds after the launcher."""


def start(launcher: str, flags: list[object], notes: Path, fault: dict[str, Any] | None = None, **more: str) -> Any:
    """The launcher's process; `notes` is a new folder that the ranks write into."""
    notes.mkdir(parents=True)
    variables = {"CHAOS_NOTES": str(notes), "CHAOS_FAULT": json.dumps(fault or {})}
    command = [str(part) for part in (*launch_command(launcher), *flags)]
    with (notes / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | CLUSTER | variables | more,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's signals are not what is tested
        )
    (notes / "launcher").write_text(str(process.pid))
    return process


def finish(process: Any, notes: Path) -> Outcome:
    """Wait for the launcher and for every process that it started."""
    started = time.monotonic()
    wait_for(lambda: process.poll() is not None or (notes / "fired").exists() or time.monotonic() > started + STARTING)
    fired = time.monotonic()
    wait_for(lambda: process.poll() is not None or time.monotonic() > fired + LIMIT)
    code, seconds = process.poll(), time.monotonic() - fired
    orphans = _processes_of(notes)
    deadline = time.monotonic() + (ORPHANS if code is not None else 0.0)
    while orphans and time.monotonic() < deadline:
        time.sleep(0.1)
        orphans = _processes_of(notes)
    described = [_describe(process) for process in orphans]
    for orphan in orphans:
        orphan.kill()
    psutil.wait_procs(orphans, timeout=20)
    codes = {
        rank: _read_number(notes / f"exit_{rank}") for rank in range(NUM_RANKS) if (notes / f"pid_{rank}").exists()
    }
    output = (notes / "output").read_text(errors="replace")
    return Outcome(code, codes, seconds, output, (notes / "fired").exists(), described)


def launch(
    launcher: str, flags: list[object], notes: Path, fault: dict[str, Any] | None = None, **more: str
) -> Outcome:
    return finish(start(launcher, flags, notes, fault, **more), notes)


def _processes_of(notes: Path) -> list[psutil.Process]:
    """By a variable that they inherited, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CHAOS_NOTES") == str(notes) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline()[:6])}"
    except psutil.Error:
        return str(process.pid)


def _read_number(path: Path) -> int | None:
    text = path.read_text() if path.exists() else ""
    return int(text) if text else None  # killed as it wrote it


# -- what is in a run folder --


def last_end(folder: Path) -> str:
    """How the journal says the last start ended: "" where it could not, "-" where it has no start."""
    records = read_records(folder / "attempts.jsonl")
    return records[-1].get("end", "") if records else "-"


def furthest_update(folder: Path) -> int:
    """The last update that the log has."""
    found = _UPDATE.findall(_log(folder))
    return int(found[-1]) if found else 0


def committed_updates(folder: Path) -> list[int]:
    """Updates whose checkpoint the log says was committed."""
    return [int(update) for update in _COMMITTED.findall(_log(folder))]


def newest_checkpoint(folder: Path) -> Path | None:
    found = checkpoint_folders(folder / "checkpoints")
    return found[0] if found else None


def _log(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def wait_for(condition: Callable[[], bool]) -> None:
    """A condition that sets its own limit."""
    while not condition():
        time.sleep(0.02)
