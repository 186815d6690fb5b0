"""train.py with one fault in it, given to a launcher in train.py's place; the fault itself is real.

What CHAOS_FAULT says (see tests.chaos.cells.Fault) is done once, at exactly that point of the program, by wrapping the
objects that the run is made of. The folder CHAOS_NOTES keeps what happened: `fired`, and each rank's own exit code, which
most launchers lose. Everything else is train.py as its users start it.
"""

import json
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import training.lifecycle

ROOT = Path(__file__).resolve().parents[2]
NOTES = Path(os.environ["CHAOS_NOTES"])
FAULT: dict[str, Any] = json.loads(os.environ.get("CHAOS_FAULT", "{}"))
_PACE = 0.7  # seconds a micro-batch takes after the fault, so that the run does not end before anybody notices it


def rank() -> int:
    """The launchers' names for it; training.distributed settles them only later."""
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    return int(next((os.environ[name] for name in names if name in os.environ), "0"))


class Fault:
    """Happens once, on one rank, in one update."""

    def __init__(self) -> None:
        self.has_fired = False
        self.is_here = bool(FAULT) and rank() == FAULT["rank"]

    def reach(self, phase: str, update: int) -> None:
        """The program is there."""
        if not self.is_here or self.has_fired or FAULT["phase"] != phase or update != FAULT["update"]:
            return
        self.has_fired = True
        note(
            "fired", json.dumps({"phase": phase, "update": update, "rank": rank(), "thread": threading.get_native_id()})
        )
        if FAULT["target"] == "file":
            os.truncate(FAULT["path"], 0)
        elif FAULT["target"] == "nobody":  # somebody outside is to do it, and says when it is done
            while not (NOTES / "go").exists():
                time.sleep(0.02)
        else:
            target = int((NOTES / "launcher").read_text()) if FAULT["target"] == "launcher" else os.getpid()
            os.kill(target, signal.Signals[FAULT["signal"]])
        # The kernel delivers a signal to oneself before the next line only where it is not taken by another thread.
        time.sleep(0.05)

    def pace(self) -> None:
        if self.has_fired and FAULT["target"] in ("rank", "launcher"):
            time.sleep(_PACE)


FAULT_HERE = Fault()


def note(name: str, content: str) -> None:
    """Appears whole: somebody waits for it."""
    partial = NOTES / f"{name}.{rank()}.partial"
    partial.write_text(content)
    partial.rename(NOTES / name)


def is_poisoned(what: str, update: int) -> bool:
    """Whether this rank's numbers are to be wrong in this update."""
    return FAULT_HERE.is_here and FAULT["target"] == what and update in FAULT["updates"]


def note_exits() -> None:
    """Every way out of a rank goes through os._exit."""
    leave = os._exit

    def noted(code: int) -> None:
        (NOTES / f"exit_{rank()}").write_text(str(int(code)))
        leave(code)

    os._exit = noted  # type: ignore[assignment]


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """`owner.name(...)` becomes `around(original, ...)`."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def update_of(path: Path) -> int:
    """Of a file in a checkpoint's folder, staged or not."""
    return int(path.parent.name.split(".")[0].removeprefix("update-"))


# -- around the run's own methods --


def start_ranks(original: Callable[..., Any], *args: Any) -> Any:
    FAULT_HERE.reach("rendezvous", 0)
    return original(*args)


def start_engine(original: Callable[..., Any], *args: Any) -> Any:
    FAULT_HERE.reach("start-up", 0)
    return original(*args)


def losses(original: Callable[..., Any], run: Any, *args: Any) -> Any:
    found = original(run, *args)
    FAULT_HERE.reach("forward", run.update)
    FAULT_HERE.pace()
    if is_poisoned("loss", run.windows.position(run.update)):
        note("fired", json.dumps(args[0].sequence_ids.tolist()))
        return found._replace(total=found.total * float("nan"))
    return found


def advance(original: Callable[..., Any], run: Any, *args: Any) -> Any:
    if is_poisoned("weights", run.update):
        note("fired", "")
        next(run.model.parameters()).data.view(-1)[0] += 1e-3
    return original(run, *args)


def begin(original: Callable[..., Any], checkpoints: Any, state: dict[str, Any], *args: Any, **more: Any) -> Any:
    FAULT_HERE.reach("begin", state["update"])
    return original(checkpoints, state, *args, **more)


def refuse_spike(original: Callable[..., Any], run: Any, loss: Any, micro_batch: int) -> Any:
    if micro_batch == 2:  # the gradients of the first are there
        FAULT_HERE.reach("accumulation", run.update)
    return original(run, loss, micro_batch)


def beating(original: Callable[..., Any], run: Any, phase: str, batches: Any) -> Iterator[Any]:
    for number, batch in enumerate(original(run, phase, batches)):
        if number == 1:
            FAULT_HERE.reach("evaluation", run.update)
        yield batch


def write_blocks(original: Callable[..., Any], path: Path, blocks: Iterable[Any]) -> Any:
    def halfway() -> Iterator[Any]:
        for number, block in enumerate(blocks):
            if number == 2:  # the header and a tensor are written
                FAULT_HERE.reach("save", update_of(path))
            yield block

    FAULT_HERE.reach("writer", update_of(path))
    return original(path, halfway())


def arm() -> None:
    """After train.py took its signals: the imports are those that it would make next."""
    import trainer
    import training.checkpoint
    import training.distributed
    import training.shard

    wrap(training.distributed, "start_ranks", start_ranks)
    wrap(trainer, "start_engine", start_engine)
    wrap(training.shard, "write_blocks", write_blocks)
    wrap(training.checkpoint.Checkpoints, "begin", begin)
    wrap(trainer, "refuse_spike", refuse_spike)
    for around in (losses, beating, advance):
        wrap(trainer.Trainer, around.__name__, around)


class ArmedStopRequest(training.lifecycle.StopRequest):
    """The first thing that train.py makes; the rest follows."""

    def __init__(self) -> None:
        super().__init__()
        arm()


if __name__ == "__main__":
    sys.argv[0] = str(ROOT / "train.py")
    note_exits()
    (NOTES / f"pid_{rank()}").write_text(str(os.getpid()))
    training.lifecycle.StopRequest = ArmedStopRequest  # type: ignore[misc]
    assert threading.active_count() == 1
    runpy.run_path(sys.argv[0], run_name="__main__")
