"""The processes that prepare a corpus together: spawned ones on this machine, or MPI ranks on many.

Both run `encode_share` once for every member and bring errors back to the first; nobody waits for a member that failed.
"""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from data.encoding import Job, StoppedError, encode_share
from data.progress import ProgressReport

Result = TypeVar("Result")

_POLL_SECONDS = 0.1
_REPORT_SECONDS = 0.5  # between two reports of a member, which cost a message


class Crew(Protocol):
    """Who works together on a preparation. Every member's process calls the same methods in the same order."""

    is_first: bool

    def from_first(self, work: Callable[[], Result]) -> Result:
        """What `work` returns in the first process, in every one; an error of it is raised there, and ends the others."""
        ...

    def encode(self, job: Job, progress: ProgressReport | None) -> None:
        """All shares of the job. Errors: those of `encode_share`, ChildProcessError."""
        ...


class LocalCrew:
    """Spawned processes, or with one member this process itself."""

    is_first = True

    def __init__(self, num_members: int) -> None:
        self.num_members = num_members

    def from_first(self, work: Callable[[], Result]) -> Result:
        return work()

    def encode(self, job: Job, progress: ProgressReport | None) -> None:
        if self.num_members == 1:
            encode_share(job, 0, 1, progress.add if progress else _ignore)
            return
        # Spawned, not forked: the parent may have threads, and a fork would copy whatever lock they hold.
        context = get_context("spawn")
        pipes = [context.Pipe(duplex=False) for _ in range(self.num_members)]
        members = [
            context.Process(target=_work, args=(job, number, self.num_members, pipes[number][1]))
            for number in range(self.num_members)
        ]
        try:
            for member, (_, writing_end) in zip(members, pipes, strict=True):
                member.start()
                writing_end.close()
            errors = list(_messages([reading_end for reading_end, _ in pipes], job, progress))
        finally:
            for member in members:
                if member.pid is not None:
                    member.terminate()
                    member.join()
        if errors:
            raise cause(errors)


def _messages(pipes: list[Connection], job: Job, progress: ProgressReport | None) -> Iterator[Exception]:
    """What goes wrong in the members, until the last of them is done; progress is passed on."""
    working = set(pipes)
    while working:
        for pipe in wait(list(working), timeout=_POLL_SECONDS):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except EOFError:
                message = ChildProcessError(
                    "a worker process died, most likely for lack of memory. The same command goes on where it stopped; "
                    "try fewer processes: --workers 1"
                )
            if isinstance(message, tuple):
                if progress:
                    progress.add(*message)
                continue
            working.discard(pipe)
            if message is not None:
                ask_to_stop(job)
                yield message


def ask_to_stop(job: Job) -> None:
    with contextlib.suppress(OSError):  # a full disk: the others will meet it too
        job.stop_file.touch()


def cause(errors: list[Exception]) -> Exception:
    """The error to tell, of those that members met at the same time: the others stopped for one of them."""
    return next((error for error in errors if not isinstance(error, StoppedError)), errors[0])


def _ignore(read: int, documents: int, tokens: int) -> None:
    """Nobody watches."""


class Reporter:
    """Adds up a member's progress and sends it on now and then."""

    def __init__(self, send: Callable[[tuple[int, int, int]], Any]) -> None:
        self._send, self._sums, self._last = send, [0, 0, 0], 0.0

    def __call__(self, *figures: int) -> None:
        self._sums = [total + figure for total, figure in zip(self._sums, figures, strict=True)]
        if time.monotonic() - self._last > _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._send((self._sums[0], self._sums[1], self._sums[2]))
        self._sums, self._last = [0, 0, 0], time.monotonic()


def _work(job: Job, member: int, num_members: int, pipe: Connection) -> None:
    """A spawned member: progress, and in the end None or what went wrong, through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent answers it
    threading.Thread(target=_die_with_parent, daemon=True).start()
    report = Reporter(pipe.send)
    try:
        encode_share(job, member, num_members, report)
        report.flush()
        pipe.send(None)
    except Exception as error:
        pipe.send(plain(error))


def plain(error: Exception) -> Exception:
    """Something that survives the way between processes: ours as they are, others as what they say."""
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename) if error.errno else OSError(str(error))
    if type(error) in (ValueError, StoppedError):
        return error
    traceback.print_exception(error)  # a defect: where it happened is known here only
    return RuntimeError(f"{type(error).__name__}: {error}")


def _die_with_parent() -> None:
    """A parent that is killed cannot say so; without this its members would go on without it."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
