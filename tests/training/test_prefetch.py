"""Copying ahead: nothing on a CPU; on CUDA the right order of streams, written down by ones that only take notes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from training.prefetch import on_device


class Note:
    """A tensor, as far as streams are concerned."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def record_stream(self, stream: "Stream") -> None:
        self.notes.append(f"{self.name} is used on {stream.name}")


class Stream:
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def record_event(self) -> str:
        return f"after {self.notes[-1]}"

    def wait_event(self, event: str) -> None:
        self.notes.append(f"{self.name} waits until {event}")


class HostBatch:
    def __init__(self, number: int, notes: list[str], current: list[Stream]) -> None:
        self.number, self.notes, self.current = number, notes, current

    def to(self, device: torch.device) -> "HostBatch":
        self.notes.append(f"copy {self.number} on {self.current[-1].name}")
        return self

    def tensors(self) -> list[Note]:
        return [Note(f"{name}{self.number}", self.notes) for name in "ab"]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The current stream is the last one."""
    current = [Stream("computing", [])]

    @contextmanager
    def using(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copying", current[0].notes))
    monkeypatch.setattr(torch.cuda, "stream", using)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    return current


def test_cuda_copies_one_batch_ahead_and_hands_over_in_order(streams: list[Stream]) -> None:
    notes = streams[0].notes
    for batch in on_device([HostBatch(i, notes, streams) for i in range(3)], torch.device("cuda")):
        notes.append(f"compute {batch.number} on {streams[-1].name}")
    handed_over = [
        [
            f"computing waits until after copy {i} on copying",
            f"a{i} is used on computing",
            f"b{i} is used on computing",
            f"compute {i} on computing",
        ]
        for i in range(3)
    ]
    assert notes == [
        *("copy 0 on copying", "copy 1 on copying", *handed_over[0]),
        *("copy 2 on copying", *handed_over[1], *handed_over[2]),
    ]


def test_an_update_without_batches(streams: list[Stream]) -> None:
    assert list(on_device([], torch.device("cuda"))) == []


def test_on_a_cpu_nothing_is_copied_or_read_ahead() -> None:
    batches = [HostBatch(i, [], []) for i in range(3)]
    source = iter(batches)
    moved = on_device(source, torch.device("cpu"))
    assert next(moved) is batches[0]
    assert next(source) is batches[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_values_arrive() -> None:
    class Pinned:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

        def to(self, device: torch.device) -> "Pinned":
            return Pinned(self.tensor.to(device, non_blocking=True))

        def tensors(self) -> list[torch.Tensor]:
            return [self.tensor]

    source = (Pinned(torch.full((1_000_000,), float(i)).pin_memory()) for i in range(20))
    sums = [batch.tensor.square().sum() for batch in on_device(source, torch.device("cuda"))]
    assert torch.stack(sums).tolist() == [i * i * 1_000_000.0 for i in range(20)]
