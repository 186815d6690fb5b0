"""Where the time of an update goes: seconds in each of its parts, without waiting for the device in an update."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch.profiler import record_function

PARTS = ("teacher", "student", "head", "backward", "optimizer", "communication")
SHARES = ("data_wait_share", *(f"{part}_share" for part in PARTS))
"""Of the time between two lines. They do not overlap, but for one case: on CUDA it is the host that waits for data, while
the device may still be busy with a part."""
COLLECTIVES = ("all_reduce", "reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor", "barrier")
"""Methods of DeepSpeed's backend, through which all communication of ZeRO-1 and ZeRO-2 passes."""
OVERLAPPED_WAITS = ("average_tensor", "independent_gradient_partition_epilogue")
"""Methods of DeepSpeed's ZeRO optimizer in which the computing stream waits for the one that communicates."""


class _Span(NamedTuple):
    part: str
    outer: str | None
    begin: Any  # float or torch.cuda.Event
    end: Any


class Parts:
    """Seconds inside `with parts(name):` blocks. Of a block inside another only the inner part gets the time, so the
    parts are disjoint and their shares of the time add up to at most 1.

    On a CPU this is time of the host. On CUDA it is time between two events on the stream that computes, so it holds the
    gaps in which the device waited for the host as well; what other streams do meanwhile is in no part.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_labelled = False
        """Whether the blocks carry their names in the trace of a profiler."""
        self.stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self.open: str | None = None
        """The innermost block that was entered and not left."""
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._spans: deque[_Span] = deque()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        outer, self.open = self.open, part
        begin = self._mark()
        with record_function(part) if self.is_labelled else nullcontext():
            yield
        self._spans.append(_Span(part, outer, begin, self._mark()))
        self.open = outer
        self._add_up()

    def take(self) -> list[float]:
        """Seconds since the last call, in the order of PARTS. Waits for the device."""
        if self.stream is not None:
            self.stream.synchronize()
        self._add_up()
        seconds, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        return list(seconds.values())

    def _mark(self) -> Any:
        if self.stream is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(self.stream)
        return event

    def _add_up(self) -> None:
        """Blocks that the device has passed; asking does not wait for it."""
        while self._spans and (self.stream is None or self._spans[0].end.query()):
            part, outer, begin, end = self._spans.popleft()
            seconds = end - begin if self.stream is None else begin.elapsed_time(end) / 1000.0
            self._seconds[part] += seconds
            if outer is not None:
                self._seconds[outer] -= seconds


@contextmanager
def communication_timed(engine: Any, parts: Parts) -> Iterator[None]:
    """Counts the time that computing loses to communication, inside backward and step, as part "communication".

    On a CPU a collective holds up the host, so the part is all of it: copying, adding, and waiting for slower ranks.
    On CUDA it is the time for which the stream that computes stands still. A collective issued on that stream stops it until
    all ranks are done, so it counts whole. With `overlap_comm` DeepSpeed reduces gradients on a stream of its own; then
    the stops at each full bucket and at the end of backward count, with the addition of the reduced gradients there, and
    reductions that computing hides do not. What collectives on other streams take from a kernel that runs beside them
    (memory bandwidth, multiprocessors) cannot be seen and stays in backward.
    """
    import deepspeed.comm.comm

    owners: list[tuple[Any, tuple[str, ...]]] = [(deepspeed.comm.comm.cdb, COLLECTIVES)]
    # ZeRO-1 in bf16 has another optimizer, which overlaps nothing and has no such methods.
    if parts.stream is not None and engine.zero_overlap_comm() and hasattr(engine.optimizer, OVERLAPPED_WAITS[0]):
        owners.append((engine.optimizer, OVERLAPPED_WAITS))
    for owner, names in owners:
        for name in names:
            setattr(owner, name, _timed(getattr(owner, name), parts))
    try:
        yield
    finally:
        for owner, names in owners:
            for name in names:
                delattr(owner, name)  # what was set on the object hid the method of its class


def _timed(method: Callable[..., Any], parts: Parts) -> Callable[..., Any]:
    @wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        if parts.open is None:  # a checkpoint, an evaluation: the clock stands still for those
            return method(*args, **kwargs)
        with parts("communication"):
            return method(*args, **kwargs)

    return timed
