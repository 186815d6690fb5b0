"""What the ranks tell each other in one update: a formula, and the check that DeepSpeed really does it.

    python -m bench.communication
    python -m bench.communication --ranks 4 --accumulations 64

The formula lists every collective of an update, in order, with its element type and number of elements, for DeepSpeed
0.19.8's ZeRO-1 and ZeRO-2 as our engine uses them. The check runs real ranks and compares call by call. Nothing here
imports torch. bench/SCALING.md explains and extrapolates.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bench.step_report import table, version
from command_line import parse

ROOT = Path(__file__).resolve().parent.parent
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint8": 1}
BF16_OPTIMIZER_BUCKET = 500_000_000
"""DeepSpeed's constant: ZeRO-1 in bf16 does not read `reduce_bucket_size`."""


class Collective(NamedTuple):
    """One call of one rank, as torch.distributed gets it."""

    operation: str
    """all_reduce, reduce or all_gather."""
    dtype: str
    elements: int
    """Of the tensor that all ranks share: an all-gather's output, not the part that a rank brings."""

    @property
    def payload(self) -> int:
        """Bytes of that tensor."""
        return self.elements * BYTES[self.dtype]

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends, on average, by the bandwidth-optimal ring algorithms.

        An all-reduce is a reduce-scatter and an all-gather: 2 (R - 1) / R of the payload. A reduce to one rank passes the
        payload along a chain: R - 1 ranks of R send it once.
        """
        passes = 2 if self.operation == "all_reduce" else 1
        return passes * (ranks - 1) / ranks * self.payload


class Parameter(NamedTuple):
    """A weight of the student, as the formula needs it."""

    group: int
    """0: matrices, which decay. 1: vectors, which do not."""
    offset: int
    """Elements of its group before it."""
    elements: int


@dataclass(frozen=True, kw_only=True)
class Update:
    """What decides the traffic of an update: keys of the DeepSpeed JSON, by default those of ds_configs/zero2.json, and
    the launch."""

    stage: int
    ranks: int
    accumulation: int
    """Micro-batches of one rank."""
    reduce_bucket_size: int = 8_000_000
    reduce_scatter: bool = False
    use_multi_rank_bucket_allreduce: bool = True
    communication_dtype: str = "float32"
    weight_dtype: str = "bfloat16"
    overlap_comm: bool = True


def predict(update: Update, parameters: Sequence[Parameter]) -> list[Collective]:
    """Every collective of one update.

    `parameters` are in the order in which backward finishes their gradients. It decides where buckets are cut, and so the
    number of calls; the bytes do not depend on it.
    """
    padded = [padded_elements(parameters, group, update.ranks) for group in range(1 + max(p.group for p in parameters))]
    gathers = [Collective("all_gather", update.weight_dtype, n) for n in padded] if update.ranks > 1 else []
    if update.stage == 1 and update.weight_dtype == "bfloat16":
        # BF16_Optimizer: every rank sums, and knows, the whole gradient; it needs nobody for its norm or its overflow
        sums = cut(padded, BF16_OPTIMIZER_BUCKET)
        return [*(Collective("all_reduce", update.communication_dtype, n) for n in sums), *gathers]
    if update.stage == 1 and not update.overlap_comm:
        parameters = sorted(parameters)  # no hook starts a reduction: all follow the last backward, group by group
    reductions = update.accumulation if update.stage == 2 else 1
    overflow = [Collective("all_reduce", "uint8", 1)] if update.weight_dtype != "float32" else []
    return [
        *reductions * [c for bucket in buckets(update, parameters) for c in reduce_bucket(update, bucket, parameters)],
        *overflow,
        *len(padded) * [Collective("all_reduce", "float32", 1)],  # the squared norm of each group
        *gathers,
    ]


def buckets(update: Update, parameters: Sequence[Parameter]) -> list[list[int]]:
    """Indices of the gradients that are reduced together: each joins the open bucket or, where it would overflow, closes
    it. One that is larger than a bucket has its own."""
    filled: list[list[int]] = [[]]
    elements = 0
    for index, parameter in enumerate(parameters):
        if elements + parameter.elements > update.reduce_bucket_size and filled[-1]:
            filled.append([])
            elements = 0
        filled[-1].append(index)
        elements += parameter.elements
    return filled


def reduce_bucket(update: Update, bucket: list[int], parameters: Sequence[Parameter]) -> list[Collective]:
    """The calls for one bucket. In no setting is one of them a reduce-scatter."""
    dtype = update.communication_dtype
    if not update.reduce_scatter:
        return [Collective("all_reduce", dtype, sum(parameters[i].elements for i in bucket))]
    slices = [part for i in bucket for part in owners(update, i, parameters)]
    if update.use_multi_rank_bucket_allreduce:
        return [Collective("all_reduce", dtype, n) for n in cut([n for _, n in slices], update.reduce_bucket_size)]
    per_owner: dict[int, int] = {}
    for owner, elements in slices:
        per_owner[owner] = per_owner.get(owner, 0) + elements
    return [Collective("reduce", dtype, elements) for elements in per_owner.values()]


def owners(update: Update, index: int, parameters: Sequence[Parameter]) -> list[tuple[int, int]]:
    """(rank, elements) of the pieces of a gradient: each rank owns an equal stretch of its group, padding included."""
    group, offset, elements = parameters[index]
    stretch = padded_elements(parameters, group, update.ranks) // update.ranks
    pieces = []
    for rank in range(offset // stretch, (offset + elements - 1) // stretch + 1):
        first, last = max(offset, rank * stretch), min(offset + elements, (rank + 1) * stretch)
        pieces.append((rank, last - first))
    return pieces


def cut(pieces: Sequence[int], limit: int) -> list[int]:
    """Sums of consecutive pieces; a sum ends with the piece that takes it over the limit."""
    sums, open_sum = [], 0
    for piece in pieces:
        open_sum += piece
        if open_sum > limit:
            sums.append(open_sum)
            open_sum = 0
    return [*sums, open_sum] if open_sum else sums


def padded_elements(parameters: Sequence[Parameter], group: int, ranks: int) -> int:
    """A group's weights, up to a multiple of 2 R: equal parts that start at 4 bytes."""
    multiple = 2 * ranks
    return -(-sum(p.elements for p in parameters if p.group == group) // multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine that a rank builds, runs and counts."""

    update: Update
    size: str
    length: int
    sequences: int
    """Of a micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """What rank 0 saw."""

    collectives: list[Collective]
    """Of the last update, in order."""
    parameters: list[Parameter]
    """In the order in which backward finished their gradients, with our modules alone."""
    gradient_error: float
    """Of the update's summed gradient, relative (L2) to the same in fp32 communication; 0 where that is this case."""


def count(cases: Sequence[Case]) -> list[Count]:
    """Run the cases one after another on real ranks, all of them with the same number.

    Raises:
        RuntimeError: a rank failed; its output precedes.
    """
    (ranks,) = {case.update.ranks for case in cases}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [*launcher, "-m", "bench.communication_worker", json.dumps([dataclasses.asdict(case) for case in cases])]
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    environment = inherited | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode != 0 or len(lines) != len(cases):
        print(process.stdout, end="", file=sys.stderr)
        raise RuntimeError(f"{ranks} ranks ended with exit code {process.returncode}; what they said is above")
    return [
        Count(
            collectives=[Collective(*c) for c in line["collectives"]],
            parameters=[Parameter(*p) for p in line["parameters"]],
            gradient_error=line["gradient_error"],
        )
        for line in map(json.loads, lines)
    ]


@dataclass(frozen=True, kw_only=True)
class CommunicationConfig:
    """What to count."""

    size: Literal["base", "small", "tiny"] = "tiny"
    """Teacher, as in bench.step; the student has half its layers."""
    length: int = 32
    """Tokens per sequence."""
    sequences: int = 2
    """Of a micro-batch."""
    ranks: tuple[int, ...] = (2, 4)
    """Numbers of processes, each a launch of its own."""
    accumulations: tuple[int, ...] = (1, 4, 16)
    """Micro-batches of a rank in one update."""


SETTINGS = {
    "ZeRO-1, as shipped": {"stage": 1},
    "ZeRO-2, as shipped": {"stage": 2},
    "ZeRO-2, reduce_scatter true": {"stage": 2, "reduce_scatter": True},
    "ZeRO-2, a reduce for each owner": {
        "stage": 2,
        "reduce_scatter": True,
        "use_multi_rank_bucket_allreduce": False,
    },
    "ZeRO-1, bf16 gradients sent": {"stage": 1, "communication_dtype": "bfloat16"},
    "ZeRO-2, bf16 gradients sent": {"stage": 2, "communication_dtype": "bfloat16"},
}


def compare(config: CommunicationConfig) -> tuple[list[str], bool]:
    """The table, predicted against measured, and whether every call was predicted."""
    rows, agreed = [], True
    for ranks in config.ranks:
        cases = {
            (name, accumulation): Case(
                update=Update(ranks=ranks, accumulation=accumulation, **setting),  # type: ignore[arg-type]
                size=config.size,
                length=config.length,
                sequences=config.sequences,
            )
            for accumulation in config.accumulations
            for name, setting in SETTINGS.items()
        }
        for (name, accumulation), found in zip(cases, count(list(cases.values())), strict=True):
            predicted = predict(cases[name, accumulation].update, found.parameters)
            agreed = agreed and predicted == found.collectives
            rows.append(
                (
                    str(ranks),
                    name,
                    str(accumulation),
                    str(len(predicted)),
                    str(len(found.collectives)),
                    f"{sum(c.payload for c in predicted):,}",
                    f"{sum(c.payload for c in found.collectives):,}",
                    f"{sum(c.sent(ranks) for c in found.collectives) / 1e6:,.1f}",
                    f"{found.gradient_error:.1e}",
                )
            )
    header = ("ranks", "setting", "micro-batches", "calls predicted", "calls measured", "bytes predicted")
    more = ("bytes measured", "MB sent by a rank", "gradient error")
    return table(header + more, rows), agreed


def main(config: CommunicationConfig) -> None:
    lines, agreed = compare(config)
    print(f"deepspeed {version('deepspeed')}, torch {version('torch')}\n")
    print("\n".join(lines))
    if not agreed:
        sys.exit("error: DeepSpeed did not do what the formula says; has its version changed?")


if __name__ == "__main__":
    main(parse(CommunicationConfig, sys.argv[1:], __doc__ or ""))
