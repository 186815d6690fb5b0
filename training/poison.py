"""Updates that must not be made: gradients or losses that are not finite, and losses that jump.

DeepSpeed skips an update whose gradients are not finite, on every rank alike. Here is what it does not say: which sequences
on which rank; and the rule for losses that jump. Flags stay on the device and are read only after an update was skipped.

    incidents/update-00000012.json
        {"update", "window", "reason", "micro_batches": [{"rank", "micro_batch", "what", ...}], ...}

The dots are columns, for a micro-batch and for the whole update: sequence_ids, and of each its corpus and its id in that.
"""

from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.distributed import Ranks, gather_objects
from training.files import write_json

_REMEMBERED = 100  # updates whose mean loss a jump is measured against
_NEEDED = 10  # of them, before anything counts as a jump


class Poison:
    """Remembers, for each micro-batch of the update in progress, what it consisted of and whether it was finite."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        self._ids: list[list[int]] = []
        self._losses: list[Tensor] = []
        self._gradients: list[Tensor] = []
        # The first norm's gradient is among the last that backward computes: what is not finite above it arrives there.
        norm = next(parameter for parameter in model.parameters() if parameter.dim() == 1)
        norm.register_hook(self._see_gradient)

    def add(self, sequence_ids: list[int], loss: Tensor) -> None:
        """Before the micro-batch's backward pass."""
        self._ids.append(sequence_ids)
        self._losses.append(torch.isfinite(loss.detach()))

    def forget(self) -> None:
        """The update is over."""
        self._ids, self._losses, self._gradients = [], [], []

    def report(self) -> list[dict[str, Any]]:
        """Together: the micro-batches of all ranks whose loss or gradients were not finite; waits for the device."""
        found = []
        for number, ids in enumerate(self._ids):
            what = "loss" if not self._losses[number] else ""
            if not what and number < len(self._gradients) and not self._gradients[number]:
                what = "gradients"
            if what:
                found.append({"rank": self.ranks.rank, "micro_batch": number, "what": what, "sequence_ids": ids})
        return [entry for rank in gather_objects(self.ranks, found) for entry in rank]

    def _see_gradient(self, gradient: Tensor) -> None:
        self._gradients.append(torch.isfinite(gradient).all())


class SpikeRule:
    """A loss above `factor` times the mean of the last updates' is a spike; factor 0 never is. Alike on every rank."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.losses: deque[float] = deque(maxlen=_REMEMBERED)
        self.candidate: float | None = None
        """Loss of the update in progress, if it is no spike."""

    def remember(self, losses: list[float]) -> None:
        """Those of the last updates, and no others."""
        self.losses.clear()
        self.losses.extend(losses)

    def is_spike(self, loss: float) -> bool:
        """`loss` of an update over all ranks, finite."""
        mean = sum(self.losses) / max(1, len(self.losses))
        return len(self.losses) >= _NEEDED and loss > self.factor * mean

    def accept(self) -> None:
        """The candidate's update was applied."""
        if self.candidate is not None:
            self.losses.append(self.candidate)
        self.candidate = None


def write_incident(folder: Path, incident: dict[str, Any]) -> Path:
    """Rank 0. Errors: OSError."""
    folder.mkdir(exist_ok=True)
    path = folder / f"update-{incident['update']:08d}.json"
    write_json(path, incident)
    return path
