"""Seconds of forward passes: models take turns at short stretches, so that noise of the machine hits all alike.

Not tried on a GPU so far: the path for CUDA (copies in fp16, clocks read after the device has finished) has never been run.
Shapes: B texts of a batch, L tokens of its longest.
"""

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of weights and activations alike: there is no autocast."""


class Setting(NamedTuple):
    """One way of running the models: a column of the table."""

    device: str
    """cpu or cuda."""
    precision: str
    threads: int
    """On the CPU; on a GPU one thread launches."""
    batch_size: int
    """1 measures latency, more throughput."""

    @property
    def label(self) -> str:
        if self.device != "cpu":
            return f"GPU {self.precision}"
        return f"{self.precision}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class Batch(NamedTuple):
    """What a tokenizer hands to a model, on the model's device."""

    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L): 1 for tokens, 0 for padding


Seconds = dict[Setting, dict[str, list[list[float]]]]
"""Setting -> model -> round -> seconds of each batch, in the order of the texts."""


def settings(precisions: Sequence[str], threads: Sequence[int], batch_size: int) -> list[Setting]:
    """All columns; 0 threads stand for all that torch uses now. The GPU's come last, where there is one."""
    counts = dict.fromkeys(count or torch.get_num_threads() for count in threads)  # one core: one column
    ways = [("cpu", precision, count) for precision in dict.fromkeys(precisions) for count in counts]
    if torch.cuda.is_available():
        ways += [("cuda", precision, 1) for precision in ("fp32", "fp16")]
    return [Setting(*way, size) for size in dict.fromkeys((1, batch_size)) for way in ways]


@contextlib.contextmanager
def num_threads(count: int) -> Iterator[None]:
    """`count` threads inside one operation, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    assert torch.get_num_threads() == count, f"torch uses {torch.get_num_threads()} threads instead of {count}"
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_batches(ids: Sequence[Sequence[int]], batch_size: int, pad_id: int, device: str) -> list[Batch]:
    """Neighbours in the file share a batch, padded to its longest."""
    batches = []
    for start in range(0, len(ids), batch_size):
        rows = [torch.tensor(row) for row in ids[start : start + batch_size]]
        input_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        batches.append(Batch(input_ids.to(device), mask.to(device)))
    return batches


def run(model: nn.Module, batch: Batch) -> float:
    """Seconds of one forward pass, until the device has finished."""
    wait(batch)
    started = time.perf_counter()
    model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    wait(batch)
    return time.perf_counter() - started


def wait(batch: Batch) -> None:
    if batch.input_ids.is_cuda:
        torch.cuda.synchronize(batch.input_ids.device)


@torch.inference_mode()
def measure(
    models: Mapping[str, nn.Module],
    ids: Sequence[Sequence[int]],
    ways: Sequence[Setting],
    *,
    rounds: int,
    turn: int,
    pad_id: int,
) -> Seconds:
    """Every model (fp32, CPU) over all texts in every setting, `rounds` times; `turn` texts of batch 1, then the next.

    Rounds are outermost: a slow minute then costs each setting one of its rounds at most.
    """
    copies = {}
    for device, precision in dict.fromkeys((way.device, way.precision) for way in ways):
        for name, model in models.items():
            is_original = (device, precision) == ("cpu", "fp32")
            copied = model if is_original else copy.deepcopy(model).to(device, DTYPES[precision])
            copies[device, precision, name] = copied
    batches = {way: make_batches(ids, way.batch_size, pad_id, way.device) for way in ways}
    seconds: Seconds = {way: {name: [] for name in models} for way in ways}
    for round_number in range(rounds):
        for way in ways:
            by_name = {name: copies[way.device, way.precision, name] for name in models}
            with num_threads(way.threads):
                if round_number == 0:
                    warm_up(by_name, batches[way])
                stretch = turn if way.batch_size == 1 else 1
                for name, took in one_round(by_name, batches[way], stretch, first=round_number).items():
                    seconds[way][name].append(took)
    return seconds


def warm_up(models: Mapping[str, nn.Module], batches: Sequence[Batch]) -> None:
    """One pass over each shape: libraries choose and build a kernel when they meet a new one."""
    for batch in {tuple(batch.input_ids.shape): batch for batch in batches}.values():
        for model in models.values():
            run(model, batch)


def one_round(
    models: Mapping[str, nn.Module], batches: Sequence[Batch], stretch: int, first: int
) -> dict[str, list[float]]:
    """Seconds of each batch by model. Who begins a stretch changes from one to the next, starting with model `first`."""
    names = list(models)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, start in enumerate(range(0, len(batches), stretch), start=first):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if stretch > 1:  # the caches are full of another model's weights, which a short text would pay for
                run(models[name], batches[start])
            seconds[name] += [run(models[name], batch) for batch in batches[start : start + stretch]]
    return seconds
