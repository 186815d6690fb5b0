"""The matrix: which fault, where in the program, under which launcher, and what must come of it."""

import signal
from dataclasses import dataclass
from typing import Any

from training.lifecycle import ExitCode

PHASES = {"rendezvous": 0, "start-up": 0, "forward": 7, "accumulation": 7, "save": 6, "evaluation": 8}
"""And the update in which the fault happens there."""
FAULTS = {
    "SIGTERM to a rank": ("SIGTERM", "rank"),
    "SIGUSR1 to a rank": ("SIGUSR1", "rank"),
    "SIGTERM to the launcher": ("SIGTERM", "launcher"),
    "SIGUSR1 to the launcher": ("SIGUSR1", "launcher"),
    "SIGKILL of a rank": ("SIGKILL", "rank"),
    "SIGKILL of the launcher": ("SIGKILL", "launcher"),
    "SIGSTOP of a rank": ("SIGSTOP", "rank"),
}
LAUNCHERS = ("deepspeed", "torchrun", "mpirun")


@dataclass(frozen=True)
class Cell:
    fault: str
    phase: str
    launcher: str

    @property
    def name(self) -> str:
        return f"{self.fault}, {self.phase}, {self.launcher}"

    @property
    def signal(self) -> str:
        return FAULTS[self.fault][0]

    @property
    def is_before_training(self) -> bool:
        return PHASES[self.phase] == 0

    @property
    def asks_to_stop(self) -> bool:
        """Every rank hears of it in time to save."""
        return self.signal in ("SIGTERM", "SIGUSR1") or self.fault == "SIGKILL of the launcher"

    @property
    def rank(self) -> int:
        """Both ranks get their turn: neighbours in the matrix differ."""
        return (list(PHASES).index(self.phase) + LAUNCHERS.index(self.launcher)) % 2

    def description(self) -> dict[str, Any]:
        """For the victim."""
        name, target = FAULTS[self.fault]
        return {
            "signal": name,
            "target": target,
            "phase": self.phase,
            "update": PHASES[self.phase],
            "rank": self.rank,
        }

    def codes(self) -> set[int | None]:
        """What a rank's own exit code may be; None is killed, which only the victim of SIGKILL or of its launcher is."""
        if self.asks_to_stop and not self.is_before_training:
            return {ExitCode.PREEMPTED}
        ends: set[int | None] = {None, ExitCode.FAILED}  # FAILED: lost contact with the rank that is gone
        if self.asks_to_stop or self.signal == "SIGKILL":
            ends.add(ExitCode.PREEMPTED)  # launchers pass the end of one rank on as SIGTERM
        return ends | ({ExitCode.HANG} if self.signal == "SIGSTOP" else set())

    def launcher_codes(self) -> set[int]:
        """Never 0, but for launchers that lose it."""
        number, target = FAULTS[self.fault]
        if target == "launcher":
            killed = -signal.Signals[number]
            return {killed} if number == "SIGKILL" else {killed}
        return set()


MATRIX = [Cell(fault, phase, launcher) for launcher in LAUNCHERS for phase in PHASES for fault in FAULTS]
