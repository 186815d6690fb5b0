"""The commands that a cell is made of, run one at a time, so that a signal saves and ends the one that runs.

SIGINT, SIGTERM and SIGUSR1 ask; a second SIGINT kills. train.py is asked through its rank 0, whose process is in the run
folder's lock: launchers pass signals on in different ways, and some not at all (launcher/README.md).
"""

import contextlib
import ctypes
import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from evaluation.ablation.settings import environment

Ask = Callable[[subprocess.Popen[bytes]], None]
"""Asks a command to end soon."""

PR_SET_PDEATHSIG = 1
PASSES_USR1_ON = ("srun", "mpirun", "mpiexec", "prterun")
"""Launchers that hand SIGUSR1 to every rank, and whose ranks would not survive a SIGTERM."""


class Commands:
    """Takes the signals of this process from the moment it is made."""

    def __init__(self) -> None:
        self.stop_reason = ""
        """Empty until something has asked to stop; then no other command is begun."""
        self._process: subprocess.Popen[bytes] | None = None
        self._ask: Ask = terminate
        self._interrupts = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def run(self, command: Sequence[str], *, log: Path, lock: int, ask: Ask, if_orphaned: signal.Signals) -> int:
        """Its exit code; negative for a signal. What it prints is added to `log`.

        It inherits the cell's `lock`, and gets the signal `if_orphaned` when this process dies without having ended it.
        """
        if self.stop_reason:
            return -signal.SIGTERM
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(command)}\n".encode())
            file.flush()
            self._ask = ask
            self._process = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process to hand on, once
                pass_fds=(lock,),
                preexec_fn=lambda: _die_with_parent(if_orphaned),
            )
            if self.stop_reason:  # asked while it was being started
                ask(self._process)
            code = self._process.wait()
            self._process = None
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        is_first, self.stop_reason = not self.stop_reason, self.stop_reason or signal.Signals(number).name
        process = self._process
        if process is None:
            return
        if is_first:
            print(f"{self.stop_reason}: waiting for what runs to save and end (Ctrl-C kills it)", flush=True)
            self._ask(process)
        elif self._interrupts >= 2:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def terminate(process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def save_and_end(run: Path, launcher: Sequence[str]) -> Ask:
    """For train.py: rank 0 tells the others, and all save. Before there is one there is nothing to save."""

    def ask(process: subprocess.Popen[bytes]) -> None:
        rank_0 = _rank_0(run)
        try:
            if rank_0 is not None:
                os.kill(rank_0, signal.SIGUSR1)
            else:
                process.send_signal(signal_for(launcher))
        except ProcessLookupError:
            pass  # it has just ended

    return ask


def signal_for(launcher: Sequence[str]) -> signal.Signals:
    """What a launcher must get for its ranks to save and end."""
    return signal.SIGUSR1 if launcher and Path(launcher[0]).name in PASSES_USR1_ON else signal.SIGTERM


def _rank_0(run: Path) -> int | None:
    """The process that holds the run folder, if it is alive on this host."""
    try:
        holder = json.loads((run / "lock").read_text(encoding="utf-8"))
        is_here = holder["host"] == socket.gethostname()
        # An id may belong to another process by now: its start time tells.
        born = Path(f"/proc/{holder['pid']}/stat").read_text().rsplit(")", 1)[1].split()[19]
        return int(holder["pid"]) if is_here and born == holder["birth"] else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _die_with_parent(number: signal.Signals) -> None:
    """Linux sends it to this process when its parent is gone. (In the child, between fork and exec.)"""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
