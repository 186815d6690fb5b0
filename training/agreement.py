"""Whether all ranks hold the same weights, as they must: they apply the same update to the same numbers."""

import torch
from torch import Tensor, nn

from training.distributed import gather_over_ranks
from training.lifecycle import RanksDisagreeError

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(model: nn.Module) -> Tensor:
    """(parameters,) int64 on the device: the sum of each parameter's bits, so any one wrong value shows."""
    return torch.stack(
        [
            parameter.detach().reshape(-1).view(_BITS[parameter.element_size()]).sum(dtype=torch.int64)
            for parameter in model.parameters()
        ]
    )


def check_weights(model: nn.Module, update: int) -> None:
    """Together. Errors: RanksDisagreeError naming the ranks and the first parameter in which they differ."""
    table = gather_over_ranks(fingerprint(model))  # (ranks, parameters)
    usual = table.mode(dim=0).values
    differs = table != usual
    if not differs.any():
        return
    ranks = differs.any(dim=1).nonzero().flatten().tolist()
    name = [name for name, _ in model.named_parameters()][int(differs.any(dim=0).nonzero()[0])]
    raise RanksDisagreeError(
        f"after update {update} the weights of ranks {ranks} differ from the others', first in {name}, though all apply the "
        "same update: a device or its memory computes wrongly, or they were changed on one rank. Exclude its host and resume"
    )
