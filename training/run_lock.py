"""One run, one writer: the lock on a run folder, held by rank 0.

flock is the lock; it goes when its process goes, however that ends. The file's text says who holds it, for the message, and
guards file systems on which flock does not reach other hosts: a holder elsewhere whose heartbeat still changes is alive.
"""

import fcntl
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from training.lifecycle import birth

_PATIENCE = 15.0  # seconds for the job before this one, which was just killed, to go
_BEATS = 12.0  # seconds in which a live holder rewrites its heartbeat, whatever it does


class RunLock:
    """
    Errors: ValueError where another process writes this folder; OSError.
    """

    def __init__(self, folder: Path, patience: float = _PATIENCE) -> None:
        self.path = folder / "lock"
        self.recovered = ""
        """Who held it before and died; empty where nobody did."""
        self._mine = {"host": socket.gethostname(), "pid": os.getpid(), "birth": birth(os.getpid())}
        self._mine |= {"token": uuid.uuid4().hex, "job": os.environ.get("SLURM_JOB_ID", "")}
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(folder, patience)
        except BaseException:
            os.close(self._descriptor)
            raise

    def check(self) -> None:
        """
        Errors: OSError where another process has taken the folder, as it may after this host was cut off from it.
        """
        holder = self._read()
        if holder.get("token") != self._mine["token"]:
            raise OSError(f"{self.path} now belongs to {_describe(holder)}: this process must not write there any more")

    def close(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _acquire(self, folder: Path, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self._flock():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"--output {folder} is being written by {_describe(self._read())}. Wait for it, stop it, or choose "
                    "another --output"
                )
            time.sleep(0.2)
        holder = self._read()
        if holder.get("host") == self._mine["host"] and holder.get("pid") != self._mine["pid"]:
            # Where the file system has no locks.
            is_alive = birth(int(holder.get("pid") or 0)) == holder.get("birth", "?")
        else:
            is_alive = bool(holder) and holder.get("host") != self._mine["host"] and _beats(folder)
        if is_alive:
            raise ValueError(
                f"--output {folder} is being written by {_describe(holder)}, which is alive. Wait for it, stop it, or "
                "choose another --output"
            )
        if holder and holder.get("pid") != self._mine["pid"]:
            self.recovered = _describe(holder)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(self._mine).encode() + b"\n", 0)
        os.fsync(self._descriptor)

    def _flock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # this file system has no locks: the heartbeat decides
        return True

    def _read(self) -> dict[str, Any]:
        try:
            holder = json.loads(os.pread(self._descriptor, 4096, 0) or b"{}")
        except ValueError:
            return {"host": "somebody who died while taking it"}
        return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    job = f", SLURM job {holder['job']}" if holder.get("job") else ""
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}{job}"


def _beats(folder: Path) -> bool:
    """Watched, not compared with this host's clock, which may be wrong."""
    beat = folder / "heartbeats" / "rank_000.json"
    before = beat.read_bytes() if beat.exists() else b""
    time.sleep(_BEATS)
    return beat.exists() and beat.read_bytes() != before
