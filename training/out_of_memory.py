"""Out of memory is not the end: the loss carries the denominators of the whole update, so a micro-batch may have any size.

The rank that ran out tells the others through the store, because they wait for it in a collective. All of them save what
they were at the end of the update before, and start their own processes again, with the same process ids, half the
micro-batch and --resume: memory that was cut to pieces is whole again, and nothing of the update that failed is left.

    micro_batch.json   {"instead_of": 8, "sequences_per_micro_batch": 4}: later starts take it up; remove it to try again
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from training.checkpoint import Checkpoints
from training.distributed import Ranks
from training.exchange import Store
from training.files import write_json
from training.lifecycle import ExitCode, RunError, StopRequest, leave_now, tell
from training.rendezvous import free_port

_FILE = "micro_batch.json"
_KEY = "distillery/out_of_memory"
_TICK = 1.0  # seconds
_ANSWER_SECONDS = 5.0  # for the store to answer
_TIMEOUT = timedelta(minutes=10)  # for the slowest rank to write its part


class TooLargeError(RunError):
    """One sequence at a time is still too much."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def smaller_micro_batch(sequences: int, sequences_per_rank: int) -> int:
    """The largest size up to half of `sequences` that divides a rank's share of an update; 0 where there is none."""
    return next((size for size in range(sequences // 2, 0, -1) if sequences_per_rank % size == 0), 0)


def read_micro_batch(folder: str) -> tuple[int, int] | None:
    """(as configured, what was found to fit instead) in the run that `folder` holds. Errors: ValueError, OSError."""
    path = Path(folder, _FILE)
    if not folder or not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        return int(record["instead_of"]), int(record["sequences_per_micro_batch"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it to start with the DeepSpeed JSON's micro-batch"
        ) from None


class Rearrangement:
    """Half the micro-batch, on every rank, in the middle of an update.

    `snapshot` gives the state and this rank's tensors of the end of the last update. Another thread may call it only while
    the main thread is inside an update.
    """

    def __init__(
        self,
        ranks: Ranks,
        folder: Path,
        checkpoints: Checkpoints,
        snapshot: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]],
        *,
        configured: int,
        current: int,
        sequences_per_rank: int,
        stop: StopRequest,
    ) -> None:
        self.ranks, self.folder, self.checkpoints, self._snapshot = ranks, folder, checkpoints, snapshot
        self.stop = stop
        self._between_updates = threading.Lock()
        self._between_updates.acquire()
        self._configured, self._current, self._sequences_per_rank = configured, current, sequences_per_rank
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._was_announced = False
        self._is_begun, self._is_over = threading.Event(), threading.Event()
        self.before_restart: Callable[[int], None] = lambda update: None
        """Told the update after which the process is replaced."""

    @contextmanager
    def inside_update(self) -> Iterator[None]:
        """Forward and backward passes: the main thread's state is that of the end of the last update."""
        self._between_updates.release()
        yield  # after an error the main thread never trains again, so what it was stays readable
        self._between_updates.acquire()

    @contextmanager
    def if_too_large(self) -> Iterator[None]:
        """Around what changes no weights: where memory runs out in it, this process does not come back."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                self.announce(error)
            raise

    def announce(self, error: BaseException) -> NoReturn:
        """The rank that ran out of memory, in its main thread."""
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        self._store.set(_KEY, f"rank {self.ranks.rank}: {reason}")
        self._run()

    def listen(self) -> None:
        """From now on every rank joins in where one has run out.

        In a thread of its own: to ask blocks for as long as the process that keeps the store is stopped.
        """
        threading.Thread(target=self._listen, name="out of memory", daemon=True).start()

    def _listen(self) -> None:
        while not self._is_over.wait(_TICK):
            if not self.is_begun and self._is_announced():
                self._run()

    @property
    def is_begun(self) -> bool:
        """The main thread no longer counts: this process is about to be replaced."""
        return self._is_begun.is_set()

    def close(self) -> None:
        self._is_over.set()

    def wait_if_begun(self) -> None:
        """What a collective that failed must ask first: the process may be about to be replaced."""
        asking = threading.Thread(target=self._note_announcement, daemon=True)
        asking.start()
        asking.join(_ANSWER_SECONDS)  # the process that keeps the store may be stopped
        if self.is_begun or self._was_announced:
            threading.Event().wait(_TIMEOUT.total_seconds())

    def _note_announcement(self) -> None:
        self._was_announced = self._is_announced()

    def _is_announced(self) -> bool:
        try:
            return self._store.check([_KEY])
        except RuntimeError:  # the rank that keeps the store is gone
            return False

    def _run(self) -> NoReturn:
        self._is_begun.set()
        try:
            with self._between_updates:
                self._save_and_restart()
        except BaseException as error:
            tell(f"error (rank {self.ranks.rank}): out of memory, and starting again failed: {error}", sys.stderr)
            leave_now(ExitCode.FAILED)

    def _save_and_restart(self) -> NoReturn:
        reason = self._store.get(_KEY).decode()
        size = smaller_micro_batch(self._current, self._sequences_per_rank)
        if not size:
            raise TooLargeError(
                f"{reason}. A micro-batch of {self._current} sequences cannot be made smaller: lower --max_length, or use "
                "more ranks or a higher ZeRO stage"
            )
        state, tensors = self._snapshot()
        self.checkpoints.exchange = exchange = Store(self.ranks, _KEY, _TIMEOUT)
        if state["update"]:
            self.checkpoints.begin(state, tensors, in_place=True)
            self.checkpoints.finish()
            if self.checkpoints.newest != state["update"]:
                raise TooLargeError(f"{reason}. The state could not be saved, see above")
        if self.ranks.is_first:
            write_json(self.folder / _FILE, {"instead_of": self._configured, "sequences_per_micro_batch": size})
            self.checkpoints.say(
                f"out of memory ({reason}): update {state['update'] + 1} is made again, and all that follow, with "
                f"micro-batches of {size} instead of {self._current} sequences"
            )
        port = exchange.from_first(free_port())
        self.before_restart(state["update"])
        exchange.wait_for_readers()
        restart(["--resume", "--output", str(self.folder)], port, self.stop.memory())


def restart(more: Sequence[str], port: int, memory: dict[str, str]) -> NoReturn:
    """This process anew, under its process id, with the flags it had and those in `more` that it had not, and with `memory`
    in its environment.

    The ranks meet at `port` of rank 0's host: the store where they met before remembers addresses that are gone.
    """
    arguments = list(sys.orig_argv)
    flags = {argument.partition("=")[0].replace("-", "_") for argument in arguments}
    if "__resume" not in flags:
        arguments.append(more[0])
    if "__output" not in flags:
        arguments += more[1:]
    os.environ.update(memory)
    os.environ["MASTER_PORT"], os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(port), "False"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The old group's sockets would stay open, with nobody behind them. Closed now, threads that wait at them would abort.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
    os.execv(arguments[0] if os.path.isabs(arguments[0]) else sys.executable, arguments)
