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
import torch.distributed as dist
from torch import Tensor

from bench.kernels_worker import copy_bandwidth
from bench.workload import PARTS, STAGES, Measurement, Workload
from data.batch import Batch
from training.distributed import keep_freed_memory, leave_ranks, start_ranks
from training.metrics import Stopwatch, measure_gemm_peak, peak_memory_bytes

WARM_UP = 2
"""Updates before the timed ones: they allocate the optimizer's state, choose kernels, and let the heap grow to its size."""
FIRST_WORD, MASK_ID = 1000, 103  # of BERT's uncased vocabulary


class Side(Protocol):
    """A way to perform the update; holds its models, optimizer and batch."""

    setup: str

    def teach(self) -> Any: ...

    def study(self) -> Any: ...

    def loss(self, prediction: Any, target: Any) -> Tensor: ...

    def backward(self, loss: Tensor) -> None: ...

    def step(self, is_last: bool) -> None:
        """After each micro-batch: add up its gradients. After an update's last: clip, update the weights, clear."""


def make_batch(workload: Workload, seed: int = 0) -> Batch:
    """Random words: nothing in the cost of an update depends on which they are."""
    generator = torch.Generator().manual_seed(seed)
    shape = (workload.sequences, workload.length)
    tokens = torch.randint(FIRST_WORD, workload.vocab_size, shape, generator=generator).flatten()
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
    if variant in STAGES:
        from bench.step_engine import EngineSide

        return EngineSide
    if variant.startswith("ours"):
        from bench.step_ours import OurSide

        return OurSide
    from bench.step_hugging_face import HuggingFaceSide

    return HuggingFaceSide


def run_update(side: Side, micro_batches: int, watches: dict[str, Stopwatch]) -> Tensor:
    """All micro-batches, the same batch each time, with fresh dropout. Returns this rank's share of the loss."""
    total = torch.zeros(())
    for number in range(1, micro_batches + 1):
        with watches["teacher"]():
            target = side.teach()
        with watches["student"]():
            prediction = side.study()
        with watches["loss"]():
            loss = side.loss(prediction, target)
        del target, prediction  # autograd holds what backward needs; nobody is charged for leftovers
        with watches["backward"]():
            side.backward(loss)
        with watches["optimizer"]():
            side.step(is_last=number == micro_batches)
        total = total.to(loss.device) + loss.detach()
    return total


def timed_updates(
    side: Side, workload: Workload, updates: int, device: torch.device
) -> tuple[list[float], dict[str, list[float]], float]:
    """Seconds of each update, the same by part, and the last loss."""
    whole, watches = Stopwatch(device), {part: Stopwatch(device) for part in PARTS}
    seconds: list[float] = []
    parts: dict[str, list[float]] = {part: [] for part in PARTS}
    loss = torch.zeros(())
    for _ in range(updates):
        with whole():
            loss = run_update(side, workload.micro_batches, watches)
        seconds.append(whole.take())  # waits for the device, so the next update starts on an idle one
        for part, watch in watches.items():
            parts[part].append(watch.take())
    return seconds, parts, loss.item()


def measure(workload: Workload) -> Measurement:
    """Warm-up, then the timed updates."""
    device = join_ranks(workload)
    make_side = side_type(workload.variant)
    baseline_bytes = peak_memory_bytes(device)
    side = make_side(workload, make_batch(workload), device)
    timed_updates(side, workload, WARM_UP, device)
    before = num_preemptions()
    seconds, parts, loss = timed_updates(side, workload, workload.updates, device)
    preemptions = num_preemptions() - before
    if not math.isfinite(loss):
        raise AssertionError(f"{workload.variant}: the loss is {loss} after {1 + workload.updates} updates")
    return Measurement(
        seconds=seconds,
        parts=parts,
        peak_bytes=peak_memory_bytes(device),  # read before the GEMM below, which allocates too
        baseline_bytes=baseline_bytes,
        gemm_peak=measure_gemm_peak(device, torch.bfloat16),
        copy_bandwidth=copy_bandwidth(device),
        preemptions_per_second=preemptions / sum(seconds),
        loss=loss,
        num_threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        setup=side.setup,
    )


def join_ranks(workload: Workload) -> torch.device:
    """This process's device; joins the process group where the variant needs one, which alone imports DeepSpeed."""
    is_cuda = torch.cuda.is_available()
    if not is_cuda and not workload.variant.startswith("hf"):
        keep_freed_memory()  # as every rank of train.py does, before anything is allocated
    if workload.variant not in STAGES and workload.ranks == 1:
        return torch.device("cuda" if is_cuda else "cpu")
    threads = torch.get_num_threads()
    device = start_ranks().device
    if workload.ranks == 1:
        torch.set_num_threads(threads)  # what the variants without a process group have
    return device


def num_preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


if __name__ == "__main__":
    measurement = measure(Workload(**json.loads(sys.argv[1])))
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(json.dumps(dataclasses.asdict(measurement)), flush=True)
    leave_ranks()
