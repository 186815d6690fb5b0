"""The crew of `mpirun -n 64 python -m data.prepare ...` and `srun --mpi=pmix ...`: every MPI rank is a member."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from data.crew import Reporter, ask_to_stop, cause, plain
from data.encoding import Job, encode_share
from data.progress import ProgressReport

Result = TypeVar("Result")

_POLL_SECONDS = 0.05
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_SIZE")


def is_launched_by_mpi(environ: Mapping[str, str]) -> bool:
    """Whether mpirun started this process, or srun several of them."""
    return any(name in environ for name in _LAUNCHED) or _tasks_of_step(environ) > 1


def abort_ranks(code: int) -> None:
    """End all ranks, where there are any: one that was interrupted, or has a defect, cannot answer the others any more."""
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized() and MPI.COMM_WORLD.size > 1:
            MPI.COMM_WORLD.Abort(code)


def _tasks_of_step(environ: Mapping[str, str]) -> int:
    return int(environ.get("SLURM_STEP_NUM_TASKS", "1")) if "SLURM_STEP_ID" in environ else 1


class MpiCrew:
    """The ranks of MPI's world. Errors: ValueError where the launcher started several processes that MPI sees alone."""

    def __init__(self) -> None:
        from mpi4py import MPI  # initialises MPI

        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self.rank, self.num_members = self._comm.rank, self._comm.size
        self.is_first = self.rank == 0
        launched = max(int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")), int(os.environ.get("PMI_SIZE", "1")))
        launched = launched if launched > 1 else _tasks_of_step(os.environ)
        if self.num_members == 1 and launched > 1:
            # All say it: nothing tells them apart but the launcher, whose numbers cannot be trusted to be there.
            raise ValueError(
                f"{launched} processes were started, but MPI sees each of them alone: mpi4py has loaded another MPI than "
                "the launcher's (MPI4PY_LIBMPI=/path/libmpi.so names the right one), or srun was not told how to connect "
                "them (srun --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH)"
            )

    def from_first(self, work: Callable[[], Result]) -> Result:
        packed, result, error = b"", None, None
        if self.is_first:
            try:
                result = work()
                packed = self._mpi.pickle.dumps(result)
            except Exception as problem:
                error = problem
        self._meet()
        failed = self._comm.bcast(error is not None)
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)  # the first rank says why
        packed = self._comm.bcast(packed)
        return result if self.is_first else self._mpi.pickle.loads(packed)  # type: ignore[return-value]

    def encode(self, job: Job, progress: ProgressReport | None) -> None:
        collected = _Collected(self.num_members - 1)
        report: Any = Reporter(lambda figures: self._comm.send(figures, dest=0))
        if self.is_first:
            report = self._reporting(job, progress, collected)
        outcome = None
        try:
            encode_share(job, self.rank, self.num_members, report)
        except Exception as error:
            outcome = plain(error)
            ask_to_stop(job)
        if not self.is_first:
            report.flush()
            self._comm.send(outcome, dest=0)
        while self.is_first and collected.working:
            self._receive(job, progress, collected)
            time.sleep(_POLL_SECONDS)
        errors = [error for error in (outcome, *collected.errors) if error is not None]
        self.from_first(lambda: _raise(errors))

    def _reporting(
        self, job: Job, progress: ProgressReport | None, collected: "_Collected"
    ) -> Callable[[int, int, int], None]:
        """The first rank's report, which also takes in those of the others."""

        def report(*figures: int) -> None:
            if progress:
                progress.add(*figures)
            self._receive(job, progress, collected)

        return report

    def _receive(self, job: Job, progress: ProgressReport | None, collected: "_Collected") -> None:
        """All messages that have come: progress, or in the end None or what went wrong."""
        while self._comm.iprobe():
            message = self._comm.recv()
            if isinstance(message, tuple):
                if progress:
                    progress.add(*message)
                continue
            collected.working -= 1
            if message is not None:
                ask_to_stop(job)
                collected.errors.append(message)

    def _meet(self) -> None:
        """A barrier that sleeps: the first rank may merge for minutes, in which MPI's own would keep every core busy."""
        request = self._comm.Ibarrier()
        while not request.Test():
            time.sleep(_POLL_SECONDS)


class _Collected:
    """What the first rank knows of the others."""

    def __init__(self, working: int) -> None:
        self.working = working
        self.errors: list[Exception] = []


def _raise(errors: list[Exception]) -> None:
    if errors:
        raise cause(errors)
