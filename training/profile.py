"""A profile of a few updates: a trace for TensorBoard or Perfetto, and the table of what took longest."""

from collections.abc import Callable
from pathlib import Path

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from training.parts import Parts

WARM_UP = 2
"""Updates before the first one of the profile: in them torch allocates, chooses kernels and starts its tracer."""
TABLE_ROWS = 10


class Profiler:
    """Watches updates WARM_UP + 1 to WARM_UP + `num_updates` from here on, writes into `folder`, and is gone.

    updates_A_to_B.pt.trace.json.gz and updates_A_to_B.txt, counted from `first_update` (updates done before). The trace
    shows the blocks of `parts` by name. The table is handed to `say` as well.
    """

    def __init__(
        self, num_updates: int, *, first_update: int, folder: Path, parts: Parts, say: Callable[[str], None]
    ) -> None:
        first = first_update + WARM_UP + 1
        self._name = f"updates_{first}_to_{first + num_updates - 1}"
        self._folder, self._parts, self._say = folder, parts, say
        self._is_cuda = parts.stream is not None
        self._left = WARM_UP + num_updates
        self._torch_profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._is_cuda else [])],
            schedule=schedule(wait=WARM_UP - 1, warmup=1, active=num_updates, repeat=1),
            on_trace_ready=self._write,
        )
        self._torch_profiler.start()
        parts.is_labelled = True

    def advance(self) -> None:
        """An update is over."""
        self._left -= 1
        if self._left >= 0:
            self._torch_profiler.step()
        if self._left == 0:
            self._torch_profiler.stop()
            self._parts.is_labelled = False

    def _write(self, torch_profiler: profile) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / f"{self._name}.pt.trace.json.gz"
        torch_profiler.export_chrome_trace(str(trace))
        table = largest(torch_profiler, self._is_cuda)
        trace.with_name(f"{self._name}.txt").write_text(table + "\n", encoding="utf-8")
        self._say(f"profile: {trace} (tensorboard, or ui.perfetto.dev), largest items:\n{table}")


def largest(torch_profiler: profile, is_cuda: bool) -> str:
    """A line for each of the TABLE_ROWS items that took longest themselves: on a CPU its operators, less what they
    called; on CUDA the kernels. Then their sum and that of all items, 100%."""
    device = DeviceType.CUDA if is_cuda else DeviceType.CPU
    items = []
    for item in torch_profiler.key_averages():
        if item.device_type == device and not item.is_user_annotation:
            microseconds = item.self_device_time_total if is_cuda else item.self_cpu_time_total
            items.append((microseconds / 1000.0, item.count, item.key))
    items.sort(reverse=True)
    total = sum(milliseconds for milliseconds, _, _ in items)
    shown = items[:TABLE_ROWS]
    rows = [(sum(milliseconds for milliseconds, _, _ in shown), sum(calls for _, calls, _ in shown), "these together")]
    rows.append((total, sum(calls for _, calls, _ in items), f"all {len(items)} items"))
    return "\n".join(
        [f"{'ms':>12} {'share':>7} {'calls':>9}  item"]
        + [f"{ms:12.3f} {ms / total:7.1%} {calls:9,}  {name[:100]}" for ms, calls, name in (*shown, *rows)]
    )
