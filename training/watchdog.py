"""A thread that watches the main one: heartbeats and hangs.

heartbeats/rank_000.json   {"rank", "host", "pid", "birth", "update", "phase", "time", "idle"}, rewritten every five
                           seconds while the process lives, by rank 0 in every second of progress
stacks/rank_000.txt        Python stacks of all threads, when any rank on this host found that nothing moves
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from training.lifecycle import ExitCode, StopRequest, birth, tell

_TICK = 1.0  # seconds
_ALIVE = 5.0  # seconds between two heartbeats of a process that does not get on
_STUCK = 20.0  # seconds after which a report that itself hangs, on a dead file system, no longer keeps the process
_LAST_RESORT = 60.0  # seconds after the timeout in which this thread itself must have been stuck
_ORPHANS_TIMEOUT = 300.0  # seconds; nobody else would end a process whose launcher is gone
_FOR_OTHERS = 3.0  # seconds in which the other ranks write their stacks before the launcher ends them


class Watchdog:
    """`beat` is called by the main thread whenever it gets on; everything else happens in a thread.

    A rank whose main thread has not moved for `timeout` seconds ends the process with HANG, with stacks. While this process
    was itself stopped (SIGSTOP, a suspended job), time does not count.
    """

    def __init__(self, folder: Path, rank: int, timeout: float, stop: StopRequest) -> None:
        self.rank, self.timeout = rank, timeout
        self._folder, self._stop = folder, stop
        self._phase, self._update, self._moved = "start", 0, time.monotonic()
        self._stacks: TextIO | None = None
        self.is_excused: Callable[[], bool] = lambda: False
        """Whether the main thread need not get on."""
        self.before_end: Callable[[], None] = lambda: None
        """Called in the thread once it has said why it ends the process."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        for part in ("heartbeats", "stacks"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        self._stacks = (self._folder / "stacks" / f"rank_{self.rank:03d}.txt").open("a")
        self._stacks.write(f"-- process {os.getpid()} on {socket.gethostname()}, {time.ctime()}\n")
        self._stacks.flush()
        # In C, so that it answers even while the main thread holds the interpreter; another rank asks for it.
        faulthandler.register(signal.SIGUSR2, file=self._stacks, all_threads=True)
        self._thread.start()

    def beat(self, phase: str, update: int) -> None:
        self._phase, self._update, self._moved = phase, update, time.monotonic()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        written, beaten, woken = 0.0, 0.0, time.monotonic()
        while not self._is_over.wait(_TICK):
            now = time.monotonic()
            if now - woken > 5 * _TICK or self.is_excused():  # this thread did not run either: the process was stopped
                self._moved = now
            woken = now
            # A thousand ranks that write every second would be felt by a file system; lock and journal ask rank 0's.
            if (self._moved != written and self.rank == 0) or now - beaten > _ALIVE:
                written, beaten = self._moved, now
                self._write_heartbeat()
            if now - self._moved > (min(self.timeout, _ORPHANS_TIMEOUT) if self._stop.is_orphan else self.timeout):
                self._end(now - self._moved)
            # Should this thread be stuck as well, because somebody holds the interpreter, C still writes the stacks. It must
            # not end the process: the same timer goes off when a suspended job wakes up.
            faulthandler.dump_traceback_later(self.timeout + _LAST_RESORT, file=self._stacks or sys.stderr)

    def _write_heartbeat(self) -> None:
        beat = {"rank": self.rank, "host": socket.gethostname(), "pid": os.getpid(), "birth": birth(os.getpid())}
        idle = time.monotonic() - self._moved
        beat |= {"update": self._update, "phase": self._phase, "time": time.time(), "idle": round(idle, 1)}
        path = self._folder / "heartbeats" / f"rank_{self.rank:03d}.json"
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(beat) + "\n")
            os.replace(partial, path)
        except OSError:
            pass  # a full disk is the checkpoint's business

    def _end(self, seconds: float) -> None:
        threading.Timer(_STUCK, os._exit, [int(ExitCode.HANG)]).start()
        others = _others(self._folder / "heartbeats", self.rank)
        for beat in others:
            if beat["state"] not in ("gone", "elsewhere"):
                os.kill(beat["pid"], signal.SIGUSR2)
        faulthandler.dump_traceback(file=self._stacks or sys.stderr, all_threads=True)
        seen = "".join(
            f"\n  rank {beat['rank']} on {beat['host']}: last seen in update {beat['update']}, {beat['phase']}, "
            f"{time.time() - beat['time'] + beat['idle']:.0f} s ago; its process {beat['pid']} is {beat['state']}"
            for beat in others
        )
        tell(
            f"error: rank {self.rank} has made no progress for {seconds:.0f} s, in update {self._update}, {self._phase} "
            f"(--hang_timeout {self.timeout:.0f}). Stacks are in {self._folder / 'stacks'}{seen}",
            sys.stderr,
        )
        self.before_end()
        time.sleep(_FOR_OTHERS)
        os._exit(ExitCode.HANG)


@contextmanager
def limited(what: str, seconds: float) -> Iterator[None]:
    """Ends the process with HANG, and stacks on stderr, when its body takes longer: before there is a run folder to watch.

    Seconds in which this process was itself stopped do not count.
    """
    is_over = threading.Event()

    def watch() -> None:
        left = seconds
        while not is_over.wait(_TICK):
            left -= _TICK
            if left < 0:
                faulthandler.dump_traceback(all_threads=True)
                tell(f"error: {what} takes more than {seconds:.0f} s (--hang_timeout)", sys.stderr)
                os._exit(ExitCode.HANG)

    threading.Thread(target=watch, name="limit", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _others(folder: Path, rank: int) -> list[dict[str, Any]]:
    """The other ranks' heartbeats, with what the system says of those processes that run here."""
    found = []
    for path in sorted(folder.glob("rank_*.json")):
        try:
            beat = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if beat["rank"] != rank:
            found.append(beat | {"state": _state(beat)})
    return found


def _state(beat: dict[str, Any]) -> str:
    if beat["host"] != socket.gethostname():
        return "elsewhere"
    try:
        process = Path(f"/proc/{beat['pid']}")
        if birth(beat["pid"]) != beat["birth"]:  # process ids are used again
            return "gone"
        letter = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"
    return {"R": "running", "S": "waiting", "D": "waiting for a disk", "T": "stopped", "Z": "gone"}.get(letter, letter)
