"""What an engine must remember, as tensors and numbers, and putting it back into an engine of any number of ranks.

ZeRO-1 and ZeRO-2 hold, for each parameter group, the fp32 weights and the optimizer's moments as one flat tensor over all
parameters, cut into one equal part a rank; the last part is padded. Without the padding, the parts of any number of ranks,
end to end, are the same tensor: another number of ranks only cuts it elsewhere. The 16-bit weights are the fp32 ones,
rounded, so they are not saved.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

Scalars = dict[str, Any]
OptimizerState = dict[int, dict[str, Any]]
"""By parameter group: tensors of this rank's part, and numbers."""


class Pieces(Protocol):
    """Tensors saved in parts, one a rank."""

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the parts end to end."""
        ...

    def length(self, name: str) -> int:
        """Elements of all parts."""
        ...

    def numbers(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of no dimension, which every rank saved alike, by what follows `prefix` in their names."""
        ...

    def vectors(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names of the others."""
        ...


def engine_tensors(engine: Any) -> dict[str, Tensor]:
    """This rank's part of the weights and moments, by name: the live tensors, without padding."""
    optimizer = engine.optimizer
    tensors = {}
    for group, (master, parameters) in enumerate(_groups(optimizer)):
        start, stop = _span(optimizer, group, master, parameters)
        length = stop - start
        tensors[f"group{group}.master"] = master.detach()[:length]
        for key, value in _optimizer_state(optimizer, group).items():
            tensors[f"group{group}.{key}"] = value[:length] if value.numel() == master.numel() else value
    return tensors


def engine_scalars(engine: Any) -> Scalars:
    """What is the same on every rank: counters, learning rates, schedule, loss scale."""
    return {
        "global_steps": engine.global_steps,
        "global_samples": engine.global_samples,
        "skipped_steps": engine.skipped_steps,
        "learning_rates": [group["lr"] for group in engine.optimizer.param_groups],
        "scheduler": engine.lr_scheduler.state_dict(),
        "loss_scaler": _plain(getattr(engine.optimizer, "loss_scaler", None)),
        "optimizer_numbers": [
            {key: value for key, value in _state_of(engine.optimizer, group).items() if isinstance(value, int | float)}
            for group in range(len(engine.optimizer.optimizer.param_groups))
        ],
    }


def read_engine(engine: Any, pieces: Pieces) -> OptimizerState:
    """This rank's part of what was saved, for `restore_engine`; the engine is not changed.

    Errors: ValueError where the saved tensors do not fit the model; OSError.
    """
    optimizer = engine.optimizer
    states: OptimizerState = {}
    for group, (master, parameters) in enumerate(_groups(optimizer)):
        prefix, expected = f"group{group}.", sum(parameter.numel() for parameter in parameters)
        start, stop = _span(optimizer, group, master, parameters)
        states[group] = dict(pieces.numbers(prefix))
        for key in pieces.vectors(prefix):
            name = prefix + key
            if pieces.length(name) != expected:
                raise ValueError(
                    f"the checkpoint's {name} has {pieces.length(name)} elements, the model needs {expected}"
                )
            part = states[group][key] = torch.zeros(master.numel())
            if start < stop:
                part[: stop - start] = pieces.part(name, start, stop)
    return states


def restore_engine(engine: Any, states: OptimizerState, scalars: Scalars) -> None:
    """Together: what `read_engine` and `engine_scalars` gave, put back."""
    optimizer = engine.optimizer
    for group, (master, _) in enumerate(_groups(optimizer)):
        master.data.copy_(states[group].pop("master"))
        states[group].update(scalars["optimizer_numbers"][group])
    # As a whole, because an optimizer makes its moments in its first step only.
    base = optimizer.optimizer
    base.load_state_dict({"state": states, "param_groups": base.state_dict()["param_groups"]})
    optimizer.update_lp_params()
    for param_group, learning_rate in zip(optimizer.param_groups, scalars["learning_rates"], strict=True):
        param_group["lr"] = learning_rate
    engine.lr_scheduler.load_state_dict(scalars["scheduler"])
    if scalars["loss_scaler"]:
        vars(optimizer.loss_scaler).update(scalars["loss_scaler"])
    for counter in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, counter, scalars[counter])


def generators(device: torch.device) -> dict[str, Tensor]:
    """The states of this rank's random generators."""
    states = {"generator.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["generator.cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(device: torch.device, states: dict[str, Tensor]) -> None:
    """What `generators` gave."""
    torch.set_rng_state(states["generator.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["generator.cuda"], device)


def _optimizer_state(optimizer: Any, group: int) -> dict[str, Tensor]:
    return {key: value for key, value in _state_of(optimizer, group).items() if torch.is_tensor(value)}


def _state_of(optimizer: Any, group: int) -> dict[str, Any]:
    return optimizer.optimizer.state[optimizer.optimizer.param_groups[group]["params"][0]]


def _span(optimizer: Any, group: int, master: Tensor, parameters: list[Tensor]) -> tuple[int, int]:
    """This rank's part [start, stop) of the group without padding; DeepSpeed's own count of that is wrong in ZeRO-1 with
    bf16 where more than one part is padded."""
    expected = sum(parameter.numel() for parameter in parameters)
    start = torch.distributed.get_rank(group=optimizer.real_dp_process_group[group]) * master.numel()
    return min(start, expected), min(start + master.numel(), expected)


def _groups(optimizer: Any) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each parameter group this rank's part of the fp32 weights, padded at its end, and the model's parameters.

    DeepSpeed has a class of its own for ZeRO-1 in bf16, with other names for the same things and without a loss scale.
    """
    if hasattr(optimizer, "fp32_groups_flat_partition"):
        lists = (optimizer.fp32_groups_flat_partition, optimizer.bf16_groups)
    else:
        lists = (optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups)
    return list(zip(*lists, strict=True))


def _plain(thing: Any) -> Scalars:
    """Its plain attributes; none of None."""
    attributes = {} if thing is None else vars(thing)
    return {key: value for key, value in attributes.items() if isinstance(value, bool | int | float)}
