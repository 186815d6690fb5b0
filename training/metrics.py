"""What a run reports: sums that stay on the device until a line is due, then console, metrics.jsonl and TensorBoard.

Nothing here synchronises with the device between two lines.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from training.parts import SHARES

GROUPS = {
    "optim": ("learning_rate", "grad_norm", "loss_scale", "skipped_updates", "epoch", "epoch_", "sequences", "tokens"),
    "loss": ("loss", "loss_"),  # after optim, which has loss_scale
    "throughput": ("tokens_per_second", "mfu", *SHARES),
    "memory": ("peak_memory_bytes",),
    "eval": ("eval_",),
}


def tensorboard_tag(field: str) -> str:
    """metrics.jsonl's field under the chart group that it belongs to: loss_mlm -> loss/loss_mlm."""
    for group, names in GROUPS.items():
        if any(field == name or (name.endswith("_") and field.startswith(name)) for name in names):
            return f"{group}/{field}"
    raise AssertionError(f"{field} belongs to no TensorBoard group")


class LossSums:
    """Sums of the update's loss components over the updates since the last line, on the device."""

    def __init__(self, components: Sequence[str], device: torch.device) -> None:
        self.components = tuple(components)
        self.updates = 0
        self._sums = torch.zeros(len(self.components), dtype=torch.float64, device=device)
        self._update = torch.zeros_like(self._sums)

    def add(self, losses: Sequence[Tensor]) -> None:
        """One micro-batch's shares, in the order of `components`."""
        self._update += torch.stack([loss.detach().to(torch.float64) for loss in losses])

    def count_update(self, is_applied: bool = True) -> None:
        """What was added since the last call is one update; one that was skipped does not count."""
        if is_applied:
            self._sums += self._update
            self.updates += 1
        self._update = torch.zeros_like(self._sums)

    def take(self) -> Tensor:
        """(components,) this rank's share of the mean per update since the last call, still on the device; starts anew.

        NaN where no update counted.
        """
        mean = self._sums / self.updates if self.updates else torch.full_like(self._sums, torch.nan)
        self._sums = torch.zeros_like(self._sums)
        self.updates = 0
        return mean

    def update_so_far(self) -> Tensor:
        """(components,) this rank's sums of the update in progress."""
        return self._update.clone()

    def state(self) -> Tensor:
        """(components,) the sums of whole updates, to be continued after a restart."""
        return self._sums.cpu()

    def restore(self, sums: Tensor, updates: int) -> None:
        """What `state` gave, and `updates`."""
        self._sums, self.updates = sums.to(self._sums), updates


class Stopwatch:
    """Seconds spent inside `with watch:` blocks; on CUDA, of the device, read only when asked."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._is_cuda:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def take(self) -> float:
        """Seconds since the last call. Waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
        seconds = self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000.0
        self._seconds, self._events = 0.0, []
        return seconds


class Clock:
    """Wall time of training alone: evaluation and checkpoints are taken out with `with clock.paused():`."""

    def __init__(self) -> None:
        self._started, self._paused = time.perf_counter(), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def take(self) -> float:
        """Seconds of training since the last call."""
        now = time.perf_counter()
        seconds = now - self._started - self._paused
        self._started, self._paused = now, 0.0
        return seconds


def peak_memory_bytes(device: torch.device) -> int:
    """Of this rank: allocated on the GPU, or resident in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss: that starts at the resident size of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure_gemm_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here and now: what model FLOP utilisation is measured against."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    watch, best = Stopwatch(device), float("inf")
    for _ in range(6):
        with watch():
            torch.mm(a, a)
        best = min(best, watch.take())
    return 2.0 * size**3 / best
