"""The matrix: which fault, where in the program, under which launcher, and what must come of it."""

from dataclasses import dataclass
from typing import Any

from training.lifecycle import ExitCode

PHASES = {"rendezvous": 0, "start-up": 0, "forward": 4, "accumulation": 4, "save": 3, "evaluation": 4}
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
KILLS_ITS_RANKS = {
    "mpirun": ("SIGTERM to the launcher",),
    "srun": ("SIGTERM to the launcher", "SIGKILL of the launcher"),
}
"""At once, without a signal that could be answered, as launcher/README.md says; SIGUSR1 stops them. The end of an srun that
made its own allocation is the end of the job."""
LAUNCHERS = ("deepspeed", "torchrun", "mpirun", "srun")


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
        if self.fault in KILLS_ITS_RANKS.get(self.launcher, ()):
            return False
        return self.signal in ("SIGTERM", "SIGUSR1") or self.fault == "SIGKILL of the launcher"

    @property
    def saves(self) -> bool:
        return self.asks_to_stop and not self.is_before_training

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
        if self.saves:
            return {ExitCode.PREEMPTED}
        ends: set[int | None] = {None, ExitCode.FAILED}  # FAILED: lost contact with the rank that is gone
        if self.signal != "SIGSTOP" or self.launcher == "mpirun":
            ends.add(
                ExitCode.PREEMPTED
            )  # launchers pass the end of one rank on as SIGTERM, mpirun with a SIGCONT before
        waits = (
            self.signal == "SIGSTOP" or self.phase == "rendezvous"
        )  # where nothing tells that a rank will never come
        return ends | ({ExitCode.HANG} if waits else set())


MATRIX = [Cell(fault, phase, launcher) for launcher in LAUNCHERS for phase in PHASES for fault in FAULTS]
