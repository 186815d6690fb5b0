"""One rank of `bench.communication`: a real engine under real accumulation, with every collective counted.

Started by torchrun from the parent only; rank 0 prints one line of JSON for each case.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.communication import Case, Collective, Count, Parameter, Update
from bench.step_engine import EngineSide
from bench.step_ours import OurSide
from bench.step_worker import Side, make_batch
from bench.workload import Workload
from data.batch import Batch
from training.distributed import Ranks, leave_ranks, start_ranks
from training.engine import parameter_groups

OPERATIONS = {"allreduce_": "all_reduce", "reduce_": "reduce", "_allgather_base_": "all_gather"}
"""Names of PyTorch's communication kernels -> ours. One that is missing here is counted under its own name."""


class CollectiveCounter(TorchDispatchMode):
    """Sees every collective below torch.distributed, whoever calls it and by whatever route."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Collective] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            for tensor in [args[0]] if isinstance(args[0], Tensor) else args[0]:
                dtype = str(tensor.dtype).removeprefix("torch.")
                self.seen.append(Collective(OPERATIONS.get(name, name), dtype, tensor.numel()))
        return func(*args, **(kwargs or {}))


def run_case(case: Case, ranks: Ranks, references: dict[int, Tensor]) -> Count:
    """Two updates: the first one's gradient is looked at, the second one's collectives are counted.

    `references` holds summed gradients by accumulation; a case without one becomes it.
    """
    update = case.update
    workload = Workload(
        variant=f"zero{update.stage}",
        size=case.size,
        length=case.length,
        sequences=case.sequences,
        updates=0,
        micro_batches=update.accumulation,
        ranks=update.ranks,
    )
    batches = [make_batch(workload, seed=rank_seed(ranks, k)) for k in range(update.accumulation)]
    dtype = getattr(torch, update.weight_dtype)
    arrivals = gradient_arrivals(OurSide(workload, batches[0], ranks.device, dtype))
    side = EngineSide(workload, batches[0], ranks.device, **ds_changes(update))
    run_update(side, batches, ranks)
    gradient = summed_gradient(side)
    side.step(is_last=True)
    with CollectiveCounter() as counter:
        run_update(side, batches, ranks)
        side.step(is_last=True)
    reference = references.setdefault(update.accumulation, gradient)
    error = float((gradient - reference).norm() / reference.norm())
    side.engine.destroy()
    return Count(collectives=counter.seen, parameters=arrivals, gradient_error=error)


def rank_seed(ranks: Ranks, micro_batch: int) -> int:
    return micro_batch * ranks.num_ranks + ranks.rank


def ds_changes(update: Update) -> dict[str, Any]:
    """The keys of the DeepSpeed JSON that a case is about."""
    names = {"float32": "fp32", "bfloat16": "bf16"}
    return {
        "communication_data_type": names[update.communication_dtype],
        "bf16": {"enabled": update.weight_dtype == "bfloat16"},
        "zero_optimization": {
            "reduce_bucket_size": update.reduce_bucket_size,
            "reduce_scatter": update.reduce_scatter,
            "use_multi_rank_bucket_allreduce": update.use_multi_rank_bucket_allreduce,
            "overlap_comm": update.overlap_comm,
        },
    }


def run_update(side: EngineSide, batches: list[Batch], ranks: Ranks) -> None:
    """All micro-batches of one update, up to the step that ends it."""
    for number, batch in enumerate(batches):
        torch.manual_seed(rank_seed(ranks, number))  # the same dropout in every case
        side.batch = batch
        run_backward(side)
        if number + 1 < len(batches):
            side.step(is_last=False)


def run_backward(side: Side) -> None:
    target = side.teach()
    side.backward(side.loss(side.study(), target))


def summed_gradient(side: EngineSide) -> Tensor:
    """This rank's part of the update's gradient, fp32, as the optimizer is about to get it."""
    optimizer = side.engine.optimizer
    if hasattr(optimizer, "fp32_groups_gradient_flat_partition"):  # ZeRO-1 in bf16
        return torch.cat(optimizer.fp32_groups_gradient_flat_partition)
    groups = sorted(optimizer.averaged_gradients.items())  # filled in the order of arrival
    return torch.cat([piece.flatten() for _, group in groups for piece in group])


def gradient_arrivals(side: OurSide) -> list[Parameter]:
    """The order in which one backward through our modules, without an engine, finishes the gradients."""
    arrived: list[Parameter] = []

    def note(place: Parameter, parameter: nn.Parameter) -> None:
        parameter.register_post_accumulate_grad_hook(lambda _: arrived.append(place))

    for index, group in enumerate(parameter_groups(side.student, 0.0)):
        offset = 0
        for parameter in group["params"]:
            note(Parameter(index, offset, parameter.numel()), parameter)
            offset += parameter.numel()
    run_backward(side)
    return arrived


def main(cases: list[Case]) -> None:
    ranks = start_ranks()
    references: dict[int, Tensor] = {}
    for case in cases:
        found = run_case(case, ranks, references)
        if ranks.is_first:
            print(json.dumps(asdict(found)), flush=True)
    leave_ranks()


if __name__ == "__main__":
    main([Case(**case | {"update": Update(**case["update"])}) for case in json.loads(sys.argv[1])])
