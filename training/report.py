"""The line of metrics: what happened since the last one, summed on the device, and its arithmetic when it is due."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from training.distributed import gather_over_ranks
from training.lifecycle import DivergedError
from training.metrics import Clock, LossSums, peak_memory_bytes
from training.parts import SHARES, Parts


class Report:
    """Counts updates and makes a line of them.

    `weights` of the loss components by name, or empty where the loss is masked LM alone. `peak_flops` of one rank: what
    model FLOP utilisation is measured against.
    """

    def __init__(
        self, weights: Mapping[str, float], *, device: torch.device, num_ranks: int, peak_flops: float
    ) -> None:
        self.parts, self.clock = Parts(device), Clock()
        self.weights, self.components = weights, tuple(weights) or ("mlm",)
        self.device, self.peak_flops = device, peak_flops * num_ranks
        self.sums = LossSums(("loss", *(f"loss_{name}" for name in self.components)), device)
        self._tokens, self._flops, self._waited, self._counted = 0, 0.0, 0.0, 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """One micro-batch's shares: `total` and the components. They stay on the device."""
        self.sums.add([losses[name] for name in ("total", *self.components)])

    def restart_waiting(self) -> None:
        """Another loader counts the seconds of waiting for data, from 0."""
        self._waited = 0.0

    def count_update(self, tokens: int, flops: float, is_applied: bool = True) -> None:
        """`tokens` and `flops` over all ranks. The losses of an update that was skipped do not count."""
        self.sums.count_update(is_applied)
        self._tokens += tokens
        self._flops += flops

    def line(
        self, progress: Mapping[str, float], optimizer: Mapping[str, float], wait_seconds: float
    ) -> dict[str, float]:
        """The updates since the last line: mean losses, means of the ranks' shares of time, the largest rank's memory.

        `progress` and `optimizer` go into the line as they are; `wait_seconds` for data since the start. Waits for the
        device, as nothing else of ours does. Every rank must call it.
        """
        parts = self.parts.take()  # before the clock: what the device still had to do belongs to these updates
        seconds = self.clock.take()
        times = torch.tensor([wait_seconds - self._waited, *parts], dtype=torch.float64) / seconds
        memory = torch.tensor([peak_memory_bytes(self.device)], dtype=torch.float64)
        self._counted = self.sums.updates
        losses = self.sums.take()
        table = gather_over_ranks(torch.cat([losses, times.to(losses), memory.to(losses)]))  # (ranks, columns)
        means = dict(zip(self.sums.components, table.sum(0).tolist(), strict=False))
        shares = table[:, len(means) : -1].mean(0).tolist()
        fields = {
            **progress,
            **means,
            **{f"loss_{name}_weighted": weight * means[f"loss_{name}"] for name, weight in self.weights.items()},
            **optimizer,
            "tokens_per_second": self._tokens / seconds,
            "mfu": self._flops / seconds / self.peak_flops,
            **dict(zip(SHARES, shares, strict=True)),
            "peak_memory_bytes": int(table[:, -1].max().item()),
        }
        self._waited, self._tokens, self._flops = wait_seconds, 0, 0.0
        return fields

    def check(self, fields: Mapping[str, float]) -> None:
        """
        Raises:
            DivergedError: the loss of updates that were applied is not finite.
        """
        if self._counted and not math.isfinite(fields["loss"]):
            raise DivergedError(
                f"the loss is {fields['loss']} at update {fields['update']}; the last checkpoint is untouched"
            )
