"""What is done for a cell: its student trained, scored and fine-tuned, each only where its product is missing."""

import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.ablation.commands import Commands, save_and_end, signal_for, terminate
from evaluation.ablation.plan import Cell, Plan, arguments
from evaluation.ablation.products import (
    Busy,
    State,
    Status,
    is_trained,
    locked,
    read_heldout,
    read_tasks,
    student_of,
)
from evaluation.ablation.settings import FINETUNE, ROOT, Settings
from evaluation.results import write_json

SAVED = 75
"""Exit code of what was stopped and may be started again."""
HOPELESS = 3
"""Of finetune.py: its results are there, and those of a task have no score."""


class StageFailed(Exception):  # noqa: N818
    """What failed and how."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage, self.reason = stage, reason


class Stopped(Exception):  # noqa: N818
    """Asked to, before the cell was finished."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One cell that is being worked on."""

    cell: Cell
    plan: Plan
    settings: Settings
    commands: Commands
    lock: int

    @property
    def log(self) -> Path:
        return self.cell.folder / "output.txt"

    def do(self) -> None:
        """
        Errors: StageFailed, Stopped.
        """
        if not is_trained(self.cell):
            self.train()
        if read_heldout(self.cell, self.settings) is None:
            self.score()
        if len(read_tasks(self.cell, self.plan)) < len(self.plan.tasks):
            self.finetune()

    def train(self) -> None:
        cell, launcher, begun = self.cell, self.plan.launcher, time.time()
        run = cell.folder / "run"
        record = {"cell": cell.name, "seed": cell.seed, **self.settings.cells[cell.name].record}
        for outdated in ("heldout.json", "finetune.json"):
            (cell.folder / outdated).unlink(missing_ok=True)  # of a student that was moved away
        write_json(record, cell.folder / "cell.json")
        words = [*(launcher or (sys.executable,)), str(ROOT / "train.py"), *arguments(cell.flags)]
        words += ["--seed", str(cell.seed), "--output", str(run), "--resume"]
        self.say("training")
        code = self.commands.run(
            words, log=self.log, lock=self.lock, ask=save_and_end(run, launcher), if_orphaned=signal_for(launcher)
        )
        if is_trained(cell):
            return
        end = _last_end(run, begun)
        if end.get("exit_code", code) == SAVED:
            self.commands.stop_reason = self.commands.stop_reason or "train.py was stopped"
        self.check("training", end.get("exit_code") or code, end.get("end", ""), is_done=False)

    def score(self) -> None:
        cell, settings = self.cell, self.settings
        teacher, partial = settings.cells[self.plan.baseline].flags["teacher"], cell.folder / "heldout.partial.json"
        flags: dict[str, Any] = {
            "teacher": teacher,
            "student": str(student_of(cell)),
            "data": self.plan.heldout.data,
            "output": str(partial),
            **{name: value for name, value in settings.heldout.items() if name not in ("data", "teacher")},
        }
        self.say("scoring on held-out text")
        code = self.run([sys.executable, "-m", "evaluation.ablation.score", *arguments(flags)])
        self.check("scoring", code, is_done=code == 0)
        figures = json.loads(partial.read_text(encoding="utf-8"))
        write_json({"settings": settings.heldout, "figures": figures}, cell.folder / "heldout.json")
        partial.unlink()

    def finetune(self) -> None:
        folder = self.cell.folder
        places = ["--model", str(student_of(self.cell)), "--output", str(folder / "finetune")]
        self.say(f"fine-tuning on {', '.join(self.plan.tasks)}")
        code = self.run([sys.executable, str(FINETUNE), *arguments(self.plan.finetune), *places])
        self.check("fine-tuning", code, is_done=code in (0, HOPELESS))
        write_json(self.plan.finetune, folder / "finetune.json")

    def run(self, words: Sequence[str]) -> int:
        return self.commands.run(words, log=self.log, lock=self.lock, ask=terminate, if_orphaned=signal.SIGTERM)

    def check(self, stage: str, code: int, detail: str = "", *, is_done: bool) -> None:
        """
        Errors: Stopped, or StageFailed where nobody asked the stage to end.
        """
        if is_done:
            return
        if self.commands.stop_reason:
            raise Stopped
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise StageFailed(stage, f"{how}{detail and f', {detail}'}")

    def say(self, what: str) -> None:
        print(f"  {what} (output: {self.log})", flush=True)


def work_on(cell: Cell, plan: Plan, settings: Settings, commands: Commands) -> Status:
    """What is missing of the cell. A failure is remembered beside it until it is started again."""
    failed = cell.folder / "failed.json"
    try:
        with locked(cell) as lock:
            failed.unlink(missing_ok=True)
            try:
                Work(cell=cell, plan=plan, settings=settings, commands=commands, lock=lock).do()
            except StageFailed as error:
                log = str(cell.folder / "output.txt")
                write_json({"stage": error.stage, "reason": error.reason, "log": log, "time": time.time()}, failed)
                return Status(State.FAILED, f"{error}; see {log}")
    except Busy as error:
        return Status(State.RUNNING, str(error))
    except Stopped:
        return Status(State.BEGUN, "stopped")
    return Status(State.FINISHED)


def _last_end(run: Path, since: float) -> dict[str, Any]:
    """How train.py says that it ended, for launchers that lose its exit code; empty where it says nothing."""
    try:
        last = json.loads((run / "attempts.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return last if "end" in last and last.get("time", 0.0) >= since else {}
