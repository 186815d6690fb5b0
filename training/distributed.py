"""Ranks: which device and threads are mine, and agreeing on errors so that nobody waits for a dead peer."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from training.lifecycle import ExitCode
from training.rendezvous import describe_group, kernel_id
from training.watchdog import limited

Result = TypeVar("Result")

COLLECTIVE_TIMEOUT = timedelta(minutes=60)
"""PyTorch's 10 minutes end a run in which one rank downloads a teacher, or rank 0 alone writes a large student."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among its peers."""

    rank: int
    num_ranks: int
    device: torch.device
    control: Any = None
    """Process group on the CPU for what ranks agree on, which must not wait for a GPU; None is the default group."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def start_ranks(patience: float = 1800.0) -> Ranks:
    """Join the process group that the launcher (deepspeed, torchrun, srun, mpirun) described; alone without one.

    Ends the process with HANG where the others do not come within `patience` seconds.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()  # first of all: importing DeepSpeed allocates, and torch's switch is read only once
    import deepspeed

    try:
        describe_group(os.environ, patience)
    except (TimeoutError, ChildProcessError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(int(ExitCode.HANG if isinstance(error, TimeoutError) else ExitCode.FAILED)) from None
    except ValueError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # nothing connects the ranks yet; one a node is enough
            print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(int(ExitCode.BAD_INPUT)) from None
    device = _own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        # DeepSpeed's allreduce through shared memory serves inference alone. Made all the same, it costs a compilation,
        # whose lock a killed start leaves to hang all later ones, and 66 MiB of /dev/shm a rank that outlive every run.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with limited("meeting the other ranks", patience):
        deepspeed.init_distributed(timeout=COLLECTIVE_TIMEOUT, verbose=False)
    if device.type == "cpu":
        share_cores()
    control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if device.type == "cuda" else None
    return Ranks(rank=dist.get_rank(), num_ranks=dist.get_world_size(), device=device, control=control)


def _own_gpu() -> torch.device:
    """That of the local rank, or the only one that the launcher lets this rank see (srun --gpus-per-task=1)."""
    local_rank, visible = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if visible == 1 and "SLURM_STEP_ID" in os.environ:
        local_rank = 0
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed takes its device from here
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def agree(ranks: Ranks, work: Callable[[], Result]) -> Result:
    """Run `work` on every rank; if it was refused on any, all ranks end with BAD_INPUT and rank 0 says why, once.

    A bad input is a ValueError, OSError or ImportError; anything else is a defect and keeps its traceback.
    """
    result, problem = None, None
    try:
        result = work()
    except (ValueError, OSError, ImportError) as error:
        problem = f"{error}"
    problems = gather_objects(ranks, problem)
    failed = [rank for rank, text in enumerate(problems) if text is not None]
    if not failed:
        return result  # type: ignore[return-value]
    if ranks.is_first:
        where = "" if len(failed) == ranks.num_ranks else f" (rank {failed[0]} of {ranks.num_ranks})"
        print(f"error{where}: {problems[failed[0]]}", file=sys.stderr, flush=True)
    raise SystemExit(int(ExitCode.BAD_INPUT))


def leave_ranks() -> None:
    """Every rank waits for the others, so that no launcher ends one that still has something to write."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # a rank that is gone need not be waited for
            dist.barrier()


def is_lost_contact(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "closed by peer"))


def from_first(ranks: Ranks, value: Result) -> Result:
    """Rank 0's value, on every rank."""
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0, group=ranks.control)
    return box[0]


def gather_objects(ranks: Ranks, value: Result) -> list[Result]:
    """Every rank's value, on every rank."""
    values: list[Any] = [None] * ranks.num_ranks
    dist.all_gather_object(values, value, group=ranks.control)
    return values


def ask_largest(ranks: Ranks, values: Sequence[int]) -> Callable[[], list[int]]:
    """Begin to find the largest over the ranks of each number; what is returned waits for it. Never waits for the device.

    gloo passes numbers around in a ring, so among a thousand ranks this takes as long as a micro-batch.
    """
    tensor = torch.tensor(values, dtype=torch.int64)
    work = dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=ranks.control, async_op=True)

    def answer() -> list[int]:
        work.wait()
        return tensor.tolist()

    return answer


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """In place."""
    dist.all_reduce(values)
    return values


def gather_over_ranks(row: torch.Tensor) -> torch.Tensor:
    """(columns,) of every rank -> (ranks, columns) on the CPU, on every rank."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows).cpu()


def share_cores() -> None:
    """Ranks that may run on the same cores divide them; launchers would leave one thread each, or all to everybody.

    Asked of the ranks, because launchers differ: torchrun lets all of a host use all its cores, mpirun and most srun bind
    each to its own, and two nodes of a job can be one machine.
    """
    mine = (kernel_id(), sorted(os.sched_getaffinity(0)))
    all_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_ranks, mine)
    sharers = sum(kernel == mine[0] and not set(cores).isdisjoint(mine[1]) for kernel, cores in all_ranks)
    torch.set_num_threads(max(1, len(mine[1]) // sharers))


def keep_freed_memory() -> None:
    """Tell glibc to keep what torch frees instead of handing it back to the kernel and faulting it in again.

    Every buffer above 128 kB is otherwise mapped anew at each use, in pages of 4 kB: filling 96 MB takes 18 ms instead of 1,
    on a virtual machine that has given the pages back to its host up to 100. A whole run gained a tenth for 6% more memory.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch, read at its first allocation
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)  # all from the heap, which keeps what is freed
        libc.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        return  # another C library: slower, not wrong
