"""One process of `bench.step`: builds one side, runs its updates, prints one line of JSON. Started by the parent only."""

import dataclasses
import json
import math
import resource
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.workload import PARTS, VOCAB_SIZE, Measurement, Workload
from data.batch import Batch
from training.metrics import Stopwatch, measure_gemm_peak, peak_memory_bytes

FIRST_WORD, MASK_ID = 1000, 103  # of BERT's uncased vocabulary


class Side(Protocol):
    """A way to perform the update; holds its models, optimizer and batch."""

    setup: str

    def teach(self) -> Any: ...

    def study(self) -> Any: ...

    def loss(self, prediction: Any, target: Any) -> Tensor: ...

    def step(self) -> None:
        """Clip, update the weights, clear the gradients."""


def make_batch(workload: Workload) -> Batch:
    """Random words: nothing in the cost of an update depends on which they are."""
    generator = torch.Generator().manual_seed(0)
    shape = (workload.sequences, workload.length)
    tokens = torch.randint(FIRST_WORD, VOCAB_SIZE, shape, generator=generator).flatten()
    columns = torch.rand(shape, generator=generator).argsort(1)[:, : workload.masked_per_sequence].sort(1).values
    starts = torch.arange(workload.sequences + 1) * workload.length
    positions = (starts[:-1, None] + columns).flatten()
    return Batch(
        token_ids=tokens.index_fill(0, positions, MASK_ID),
        position_ids=torch.arange(workload.length).repeat(workload.sequences),
        cu_seqlens=starts.to(torch.int32),
        max_seqlen=workload.length,
        masked_positions=positions,
        masked_labels=tokens[positions],
        sequence_ids=np.arange(workload.sequences),
    )


def side_type(variant: str) -> Callable[[Workload, Batch, torch.device], Side]:
    """The class of a variant, imported here so that the baseline memory holds what this variant alone needs."""
    if variant == "ours":
        from bench.step_ours import OurSide

        return OurSide
    from bench.step_hugging_face import HuggingFaceSide

    return HuggingFaceSide


def run_update(side: Side, watches: dict[str, Stopwatch]) -> Tensor:
    with watches["teacher"]():
        target = side.teach()
    with watches["student"]():
        prediction = side.study()
    with watches["loss"]():
        loss = side.loss(prediction, target)
    del target, prediction  # autograd holds what backward needs; nobody is charged for leftovers
    with watches["backward"]():
        loss.backward()
    with watches["optimizer"]():
        side.step()
    return loss.detach()


def timed_updates(side: Side, updates: int, device: torch.device) -> tuple[list[float], dict[str, list[float]], float]:
    """Seconds of each update, the same by part, and the last loss."""
    whole, watches = Stopwatch(device), {part: Stopwatch(device) for part in PARTS}
    seconds: list[float] = []
    parts: dict[str, list[float]] = {part: [] for part in PARTS}
    loss = torch.zeros(())
    for _ in range(updates):
        with whole():
            loss = run_update(side, watches)
        seconds.append(whole.take())  # waits for the device, so the next update starts on an idle one
        for part, watch in watches.items():
            parts[part].append(watch.take())
    return seconds, parts, loss.item()


def measure(workload: Workload) -> Measurement:
    """One warm-up update, then the timed ones."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    make_side = side_type(workload.variant)
    baseline_bytes = peak_memory_bytes(device)
    side = make_side(workload, make_batch(workload), device)
    timed_updates(side, 1, device)  # allocates the optimizer's state, chooses kernels
    before = num_preemptions()
    seconds, parts, loss = timed_updates(side, workload.updates, device)
    preemptions = num_preemptions() - before
    if not math.isfinite(loss):
        raise AssertionError(f"{workload.variant}: the loss is {loss} after {1 + workload.updates} updates")
    return Measurement(
        seconds=seconds,
        parts=parts,
        peak_bytes=peak_memory_bytes(device),  # read before the GEMM below, which allocates too
        baseline_bytes=baseline_bytes,
        gemm_peak=measure_gemm_peak(device, torch.bfloat16),
        preemptions_per_second=preemptions / sum(seconds),
        loss=loss,
        num_threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        setup=side.setup,
    )


def num_preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure(Workload(**json.loads(sys.argv[1]))))))
