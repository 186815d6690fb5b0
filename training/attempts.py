"""attempts.jsonl: when each start of a run began and how it ended, for people, batch scripts and the next start.

    {"attempt": 3, "start_update": 400, "num_ranks": 8, "host": "n0", "time": 1760000000.0}
    {"attempt": 3, "committed": 431, ...}
    {"attempt": 3, "end": "PREEMPTED", "exit_code": 75, "update": 431, "time": 1760003600.0}

An attempt without an end was killed; which update it was in says the heartbeat of rank 0.
"""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.lifecycle import CrashLoopError, ExitCode

REARRANGED = "REARRANGED"
_DELIBERATE = {
    REARRANGED,
    *(code.name for code in (ExitCode.FINISHED, ExitCode.PREEMPTED, ExitCode.INTERRUPTED, ExitCode.BAD_INPUT)),
}


@dataclass
class Attempts:
    """The journal of a run folder, written by rank 0, which holds the lock."""

    folder: Path
    number: int = 0
    has_ended: bool = False

    @property
    def path(self) -> Path:
        return self.folder / "attempts.jsonl"

    def begin(self, start_update: int, num_ranks: int) -> None:
        self._append({"attempt": self.number, "start_update": start_update, "num_ranks": num_ranks})

    def end(self, code: ExitCode, update: int) -> None:
        """The first end counts: what follows a hang follows from it."""
        if self.has_ended:
            return
        self.has_ended = True
        self._append({"attempt": self.number, "end": code.name, "exit_code": int(code), "update": update})

    def rearranged(self, update: int) -> None:
        """The same processes start again with smaller micro-batches."""
        self._append({"attempt": self.number, "end": REARRANGED, "exit_code": None, "update": update})

    def committed(self, update: int) -> None:
        """A checkpoint is on the disk."""
        self._append({"attempt": self.number, "committed": update})

    def open(self, max_crashes: int) -> None:
        """Number this attempt, settle the one before, refuse to repeat a failure for ever.

        Errors: CrashLoopError after `max_crashes` failures in a row in the same update.
        """
        records = [record for record in read_records(self.path) if "committed" not in record]
        if records and "end" not in records[-1]:
            killed = {
                "attempt": records[-1]["attempt"],
                "end": "KILLED",
                "exit_code": None,
                "update": self._last_update(),
            }
            killed["update"] = max(killed["update"], records[-1]["start_update"])
            self._append(killed)
            records.append(killed)
        self.number = records[-1]["attempt"] + 1 if records else 1
        failures = _failures(records)
        if len(failures) >= max_crashes:
            last = failures[-1]
            raise CrashLoopError(
                f"update {last['update'] + 1} has failed {len(failures)} times in a row (the last time: {last['end']}): "
                f"starting again would fail again. See {self.folder / 'log.txt'} and {self.folder / 'incidents'}; "
                f"remove {self.path} to try anyway"
            )

    def _last_update(self) -> int:
        try:
            return int(json.loads((self.folder / "heartbeats" / "rank_000.json").read_text())["update"])
        except (OSError, ValueError, KeyError):
            return 0

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record | {"time": time.time(), "host": socket.gethostname()}) + "\n"
        with self.path.open("a+b") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # a crash tore the line before
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def read_records(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a crash can leave a last one without its end."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def last_committed(folder: Path) -> int:
    """Update of the newest checkpoint that was ever committed in this run folder; 0 where there was none."""
    return max((record.get("committed", 0) for record in read_records(folder / "attempts.jsonl")), default=0)


def _failures(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last ends, as far back as all of them are failures in the same update."""
    failures: list[dict[str, Any]] = []
    for record in reversed([record for record in records if "end" in record]):
        if record["end"] in _DELIBERATE or (failures and record["update"] != failures[-1]["update"]):
            break
        failures.insert(0, record)
    return failures
