"""Seconds of variants at batch 1 on one thread, in turns, as evaluation.speed measures models.

Shapes: L tokens of an input.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from evaluation.speed_figures import Figure, summarize
from evaluation.speed_timing import Setting, measure
from exporting.variant import Outputs, Run

ONE_CORE = Setting("cpu", "fp32", 1, 1)
ROUNDS = 3
TURN = 8
"""Inputs that a variant reads before it is the next one's turn."""


class AsModule(nn.Module):
    """A `Run` that is called as evaluation.speed_timing calls models."""

    def __init__(self, run: Run, input_names: Sequence[str]) -> None:
        super().__init__()
        self.run, self.has_types = run, "token_type_ids" in input_names

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        batch = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        if self.has_types:
            batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
        return self.run(batch)


def time_models(
    models: Mapping[str, nn.Module], ids: Sequence[Sequence[int]], *, rounds: int = ROUNDS, turn: int = TURN
) -> dict[str, Figure]:
    """By name; `speed_up` is over the first one. Files must have been loaded for one thread."""
    seconds = measure(models, ids, [ONE_CORE], rounds=rounds, turn=turn, pad_id=0)  # nothing is padded at batch 1
    return summarize(seconds, len(ids), len(ids))[ONE_CORE]
