"""Predicted efficiency of an update on many GPUs, from the counted traffic: the tables of bench/SCALING.md.

    python -m bench.scaling

Predictions, not measurements: the number and size of every call come from `bench.communication`, where they are checked
against DeepSpeed; the times come from the stated bandwidths, latencies and step time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.communication import Collective, Parameter, Update, buckets, predict, reduce_bucket
from bench.step_report import table
from bench.workload import Workload
from model.bert import MaskedLanguageModel
from model.config import EncoderConfig
from training.engine import parameter_groups

SEQUENCES_PER_UPDATE, MICRO_BATCH, LENGTH = 4096, 32, 512
GPU_PEAK = 790e12
"""FLOP/s of large bf16 matrix products, measured on one H200."""
GPUS_PER_NODE = 8
ACHIEVED_SHARE = 0.8
"""Of the nominal bandwidth, that large NCCL calls reach."""
MEMORY_BANDWIDTH = 0.8 * 4.8e12
"""Bytes a second of an H200, of which the optimizer gets 80%."""
OPTIMIZER_BYTES = 30
"""Read and written for a weight: fp32 gradient, master and two moments read, the last three written, bf16 weight written."""
HOP_INSIDE, HOP_BETWEEN = 1e-6, 5e-6
"""Seconds that a message takes to the next GPU of a node, and to another node."""


@dataclass(frozen=True)
class Network:
    """Nominal bandwidths, bytes a second in one direction."""

    name: str
    inside: float
    """Of one GPU to the others of its node."""
    between: float
    """Of one node to the others, all its adapters together: NCCL runs one ring through each."""


INFINIBAND = Network("400 Gb/s InfiniBand for each GPU", inside=450e9, between=8 * 50e9)
ETHERNET = Network("100 Gb/s Ethernet for each node", inside=450e9, between=12.5e9)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """So many GPUs, and how busy the arithmetic keeps them."""

    ranks: int
    network: Network
    share: float
    """Of `GPU_PEAK`, while nobody communicates."""

    @property
    def nodes(self) -> int:
        return -(-self.ranks // GPUS_PER_NODE)

    @property
    def micro_batch(self) -> int:
        """32 sequences, or as many as are left for each GPU."""
        return min(MICRO_BATCH, SEQUENCES_PER_UPDATE // self.ranks)

    @property
    def accumulation(self) -> int:
        return SEQUENCES_PER_UPDATE // (self.ranks * self.micro_batch)

    @property
    def workload(self) -> Workload:
        return Workload(variant="ours", size="base", length=LENGTH, sequences=self.micro_batch, updates=0)

    @property
    def micro_batch_seconds(self) -> float:
        return self.workload.flops / (self.share * GPU_PEAK)

    @property
    def compute_seconds(self) -> float:
        """Of an update, without the optimizer."""
        return self.accumulation * self.micro_batch_seconds

    @property
    def backward_seconds(self) -> float:
        """In which a micro-batch's gradients arrive: backward through the encoder, twice its forward."""
        work = self.workload
        encoder = 2 * work.student.encoder_flops(work.num_tokens, work.num_tokens * LENGTH)
        return self.micro_batch_seconds * encoder / work.flops

    def seconds(self, call: Collective) -> float:
        """Of one collective: the ring's bytes over its slowest link, and the hops of a message."""
        links = self.network.inside if self.nodes == 1 else min(self.network.inside, self.network.between)
        return call.sent(self.ranks) / (ACHIEVED_SHARE * links) + self.latency(call)

    def latency(self, call: Collective) -> float:
        between = self.nodes if self.nodes > 1 else 0
        ring = between * HOP_BETWEEN + (self.ranks - 1 - between) * HOP_INSIDE
        if call.operation != "all_reduce":
            return ring
        tree = math.ceil(math.log2(self.nodes)) * HOP_BETWEEN + (GPUS_PER_NODE - 1) * HOP_INSIDE
        return 2 * min(ring, tree)  # NCCL takes the better one


def student_parameters(config: EncoderConfig) -> list[Parameter]:
    """The student's weights in the order in which backward finishes their gradients: the head, the layers from last to
    first, the embeddings; the word embedding is tied, needs both ends and is last."""
    with torch.device("meta"):
        model = MaskedLanguageModel(config)
    place = {}
    for number, group in enumerate(parameter_groups(model, 0.0)):
        offset = 0
        for parameter in group["params"]:
            place[parameter] = Parameter(number, offset, parameter.numel())
            offset += parameter.numel()
    encoder = model.encoder
    modules = [model.head, *reversed(encoder.layers), encoder.norm, encoder.position, encoder.word]
    return [place[parameter] for module in modules for parameter in module.parameters()]


def exposed_reduction(machine: Machine, update: Update, parameters: Sequence[Parameter]) -> float:
    """Seconds by which the reductions of one micro-batch outlast its backward, when they run beside it.

    A bucket is reduced when its last gradient is there and the bucket before it is through. Gradients arrive evenly;
    the embeddings' at the end.
    """
    total = sum(p.elements for p in parameters)
    end, arrived, free = machine.backward_seconds, 0, 0.0
    for bucket in buckets(update, parameters):
        arrived += sum(parameters[i].elements for i in bucket)
        ready = end * min(1.0, arrived / (total - parameters[-1].elements))
        calls = reduce_bucket(update, bucket, parameters)
        free = max(free, ready) + sum(machine.seconds(call) for call in calls)
    return free - end


def zero0_seconds(machine: Machine, parameters: Sequence[Parameter]) -> float:
    """Plain data parallelism: fp32 gradients, one all-reduce of each bucket of 25 MiB beside the last backward; every
    rank updates every weight."""
    update = Update(
        stage=0, ranks=machine.ranks, accumulation=1, reduce_bucket_size=25 * 2**20 // 4, reduce_scatter=False
    )
    return machine.compute_seconds + exposed_reduction(machine, update, parameters) + optimizer_seconds(1, parameters)


def zero_seconds(machine: Machine, update: Update, parameters: Sequence[Parameter]) -> float:
    """DeepSpeed's ZeRO-1 or ZeRO-2: only ZeRO-2's reductions can run beside backward, and in every micro-batch."""
    calls = predict(update, parameters)
    everything = sum(machine.seconds(call) for call in calls)
    if update.stage == 2 and update.overlap_comm:
        reductions = [c for bucket in buckets(update, parameters) for c in reduce_bucket(update, bucket, parameters)]
        hidden = sum(machine.seconds(call) for call in reductions) - exposed_reduction(machine, update, parameters)
        everything -= machine.accumulation * hidden
    return machine.compute_seconds + everything + optimizer_seconds(machine.ranks, parameters)


def optimizer_seconds(owners: int, parameters: Sequence[Parameter]) -> float:
    return OPTIMIZER_BYTES * sum(p.elements for p in parameters) / owners / MEMORY_BANDWIDTH


def strategies(machine: Machine, parameters: Sequence[Parameter]) -> dict[str, float]:
    """Seconds of an update by strategy."""

    def zero(**keys: object) -> float:
        update = Update(ranks=machine.ranks, accumulation=machine.accumulation, **keys)  # type: ignore[arg-type]
        return zero_seconds(machine, update, parameters)

    return {
        "ZeRO-0": zero0_seconds(machine, parameters),
        "ZeRO-1": zero(stage=1),
        "ZeRO-1, bf16 sent": zero(stage=1, communication_dtype="bfloat16"),
        "ZeRO-2, no overlap": zero(stage=2, overlap_comm=False),
        "ZeRO-2, buckets of 50 M": zero(stage=2, reduce_bucket_size=50_000_000),
        "ZeRO-2, as shipped": zero(stage=2),
        "the same, a reduce for each owner": zero(stage=2, reduce_scatter=True, use_multi_rank_bucket_allreduce=False),
    }


def efficiency_table(network: Network, shares: Sequence[float], all_ranks: Sequence[int]) -> list[str]:
    """Share of the update that is arithmetic, at each share of the peak."""
    parameters = student_parameters(
        Workload(variant="ours", size="base", length=LENGTH, sequences=1, updates=0).student
    )
    rows: list[tuple[str, ...]] = []
    header: tuple[str, ...] = ()
    for ranks in all_ranks:
        machines = [Machine(ranks=ranks, network=network, share=share) for share in shares]
        first = machines[0]
        columns = [strategies(machine, parameters) for machine in machines]
        header = tuple(columns[0])
        cells = [
            " / ".join(f"{m.compute_seconds / c[name]:.1%}" for m, c in zip(machines, columns, strict=True))
            for name in header
        ]
        seconds = " / ".join(f"{1000 * machine.compute_seconds:,.1f}" for machine in machines)
        rows.append((str(ranks), f"{first.accumulation} x {first.micro_batch}", seconds, *cells))
    return table(("GPUs", "micro-batches x sequences", "arithmetic, ms", *header), rows)


def main() -> None:
    shares, all_ranks = (0.4, 0.5), (8, 16, 64, 128, 256, 1024)
    for network in (INFINIBAND, ETHERNET):
        print(f"### {network.name}\n")
        print("\n".join(efficiency_table(network, shares, all_ranks)) + "\n")


if __name__ == "__main__":
    main()
