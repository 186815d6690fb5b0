"""How a run ends: every way has its own exit code, so that a batch script can tell them apart.

SIGTERM, SIGINT, SIGUSR1, the end of --stop_after or of SLURM's time, and the death of the launcher only ask: the ranks agree
at the end of an update, save, and leave with PREEMPTED. A second SIGINT stops at once.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from enum import IntEnum
from pathlib import Path
from typing import NoReturn, TextIO

_LAUNCHERS = ("deepspeed", "torchrun", "torch.distributed.run", "mpirun", "prterun", "prted")
_TICK = 1.0  # seconds between two looks at the launcher
_DEADLINE, _REASON = "DISTILLERY_DEADLINE", "DISTILLERY_STOP_REASON"
_SLURM_MARGIN = 120.0  # seconds left to save in when SLURM's time ends


class ExitCode(IntEnum):
    FINISHED = 0
    """All updates done, student written."""
    FAILED = 1
    """An error of ours or of the machine; the traceback says which. Also: a rank died, or lost contact with another."""
    BAD_INPUT = 2
    """A flag, file, corpus or model that cannot be used, or a run folder in use; one message says what to do."""
    DIVERGED = 3
    """Loss or gradients are no longer finite; checkpoints from before are kept."""
    SAVE_FAILED = 4
    """Checkpoints could not be written, repeatedly; the last complete one is kept."""
    CRASH_LOOP = 5
    """The same update failed several times in a row, over restarts; starting again would fail again."""
    HANG = 6
    """A rank made no progress for --hang_timeout; the stacks of all ranks are in the run folder."""
    MAPPED_FILE_LOST = 7
    """SIGBUS: a file was cut short, or its disk failed, under its memory map."""
    RANKS_DISAGREE = 8
    """Weights differ between ranks, which compute the same thing: a machine computes wrongly."""
    PREEMPTED = 75
    """Stopped by a signal or --stop_after, and saved: start it again with --resume. (EX_TEMPFAIL of sysexits.h.)"""
    INTERRUPTED = 130
    """A second SIGINT: stopped at once, nothing saved."""


class RunError(Exception):
    """Ends the run with an exit code of its own; the message says why and what to do."""

    code = ExitCode.FAILED


class DivergedError(RunError):
    """Training produced NaN or infinity; the message names the update."""

    code = ExitCode.DIVERGED


class SaveFailedError(RunError):
    """Checkpoints could not be written."""

    code = ExitCode.SAVE_FAILED


class CrashLoopError(RunError):
    """Starting again would fail again."""

    code = ExitCode.CRASH_LOOP


class RanksDisagreeError(RunError):
    """Ranks hold different weights."""

    code = ExitCode.RANKS_DISAGREE


class StopRequest:
    """Whether, and why, this process was asked to stop. Signals are taken from the moment it is made.

    They are read from a pipe by a thread of its own: Python's handlers run between two instructions of the main thread, and
    that one may be waiting for another rank, or be inside a kernel, for minutes. Until `defer` is called there is nothing to
    save, and the process ends at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.reason = os.environ.pop(_REASON, "")
        self.is_orphan = False
        """The launcher is gone."""
        self._is_deferred = False
        self._was_told_deadline = _DEADLINE in os.environ
        self._deadline, self._interrupts = float(os.environ.pop(_DEADLINE, _slurm_deadline())), 0
        self._launcher = _Launcher()
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in self.SIGNALS:
            # The pipe gets the number; calls that wait are taken up again.
            signal.signal(number, lambda number, frame: None)
            signal.siginterrupt(number, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read,), name="signals", daemon=True).start()

    def stop_after(self, seconds: float) -> None:
        """Counted from now; 0 is never. A process that started itself again keeps the end that it had."""
        if seconds and not self._was_told_deadline:
            self._deadline = min(self._deadline, time.time() + seconds)

    def memory(self) -> dict[str, str]:
        """What a process that replaces this one must know, for its environment."""
        return {_DEADLINE: repr(self._deadline), _REASON: self.reason}

    def defer(self) -> None:
        """From now on there is something to save: whoever asks waits for the end of the update."""
        self._is_deferred = True

    def is_asked(self) -> bool:
        if time.time() >= self._deadline:
            self._ask("the allotted time is over")
        return bool(self.reason)

    def _ask(self, reason: str) -> None:
        """The first reason is kept."""
        if not self._is_deferred:
            tell(f"stopped before training began ({reason}); there was nothing to save", sys.stderr)
            os._exit(ExitCode.PREEMPTED)
        self.reason = self.reason or reason

    def _listen(self, pipe: int) -> None:
        while True:
            ready, _, _ = select.select([pipe], [], [], _TICK)
            for number in os.read(pipe, 64) if ready else b"":
                self._interrupts += number == signal.SIGINT
                if self._interrupts == 2:
                    tell("stopped at once by a second SIGINT; nothing was saved", sys.stderr)
                    os._exit(ExitCode.INTERRUPTED)
                if number in self.SIGNALS:
                    self._ask(signal.Signals(number).name)
            if not self.is_orphan and self._launcher.is_gone():
                self.is_orphan = True
                self._ask("the launcher is gone")


def _slurm_deadline() -> float:
    """Seconds since the epoch after which to stop, so that SLURM's own end never comes first."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(end) - _SLURM_MARGIN if end.isdigit() else float("inf")


def parse_duration(text: str) -> float:
    """ "HH:MM:SS" -> seconds; "" is 0. Errors: ValueError."""
    if not text:
        return 0.0
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ValueError(f"--stop_after {text}: expected HH:MM:SS, for example 23:30:00")
    hours, minutes, seconds = map(int, parts)
    return 3600.0 * hours + 60.0 * minutes + seconds


class _Launcher:
    """The processes that started this one and that would stop it: launch.py, torchrun, slurmstepd, mpirun's daemon.

    `deepspeed` killed by SIGTERM, or any launcher by SIGKILL, leaves its ranks running: they must notice themselves.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._watched = {pid: birth(pid) for pid in _launchers_above(self._parent)}

    def is_gone(self) -> bool:
        if os.getppid() != self._parent and self._parent != 1:
            return True
        return any(birth(pid) != born for pid, born in self._watched.items())


def _launchers_above(pid: int) -> list[int]:
    """Ancestors that are launchers, up to the first that is not."""
    found: list[int] = []
    while pid > 1:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        if not any(name in command for name in _LAUNCHERS):
            break
        found.append(pid)
        pid = int(status.rsplit(")", 1)[1].split()[1])
    return found


def birth(pid: int) -> str:
    """Start time of a process, "" where it is gone or only waits to be collected: pids are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def tell(line: str, stream: TextIO) -> None:
    """Print, even to a launcher that is gone and no longer reads."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=stream, flush=True)


def leave_now(code: int) -> NoReturn:
    """End this process, whatever its threads and the other ranks do: gloo's threads abort one that exits under them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
