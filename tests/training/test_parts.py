"""Times of parts: disjoint, and on CUDA read without waiting in an update. The device here is one whose clock we turn."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from training.parts import PARTS, Parts, communication_timed

CPU = torch.device("cpu")


class Device:
    """A GPU in which `run` is a kernel: queued at once, over only when somebody waits."""

    def __init__(self) -> None:
        self.queued = self.reached = 0.0
        self.waits = 0

    def run(self, seconds: float) -> None:
        self.queued += seconds

    def synchronize(self) -> None:
        self.waits += 1
        self.reached = self.queued


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    gpu = Device()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Device) -> None:
            self.at = stream.queued

        def query(self) -> bool:
            return self.at <= gpu.reached

        def elapsed_time(self, end: "Event") -> float:
            assert self.query()
            assert end.query()
            return (end.at - self.at) * 1000.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: gpu)
    return gpu


class Backend:
    """Stands where DeepSpeed's backend does."""

    def all_reduce(self, seconds: float) -> str:
        time.sleep(seconds)
        return "reduced"

    reduce = all_gather = all_gather_into_tensor = reduce_scatter_tensor = barrier = all_reduce


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    import deepspeed.comm.comm

    fake = Backend()
    monkeypatch.setattr(deepspeed.comm.comm, "cdb", fake)
    yield fake
    assert vars(fake) == {}  # every method is the class's own again


def seconds(parts: Parts) -> dict[str, float]:
    return {name: value for name, value in zip(PARTS, parts.take(), strict=True) if value}


def test_a_part_inside_another_is_taken_out_of_it() -> None:
    parts = Parts(CPU)
    started = time.perf_counter()
    with parts("backward"):
        time.sleep(0.02)
        for _ in range(2):
            with parts("communication"):
                time.sleep(0.03)
    with parts("optimizer"):
        time.sleep(0.01)
    whole = time.perf_counter() - started
    took = seconds(parts)
    assert set(took) == {"backward", "communication", "optimizer"}
    assert took["communication"] >= 0.06
    assert 0.02 <= took["backward"] < 0.05
    assert sum(took.values()) <= whole
    assert seconds(parts) == {}


def test_communication_is_counted_inside_parts_alone(backend: Backend) -> None:
    parts = Parts(CPU)
    with communication_timed(SimpleNamespace(), parts):
        backend.all_reduce(0.05)  # a checkpoint's, while the clock stands still
        with parts("backward"):
            assert backend.all_reduce(0.03) == "reduced"
        with parts("optimizer"):
            backend.all_gather_into_tensor(seconds=0.02)
    backend.all_reduce(0.0)
    took = seconds(parts)
    assert 0.05 <= took["communication"] < 0.09
    assert took["backward"] < 0.02
    assert took["optimizer"] < 0.02


def test_cuda_parts_do_not_wait_before_they_are_read(device: Device) -> None:
    parts = Parts(torch.device("cuda"))
    for _ in range(100):
        with parts("backward"):
            device.run(0.5)
            with parts("communication"):
                device.run(0.25)
    assert device.waits == 0
    assert seconds(parts) == pytest.approx({"backward": 50.0, "communication": 25.0})
    assert device.waits == 1


def test_cuda_parts_that_are_over_are_kept_as_numbers(device: Device) -> None:
    """Not as events: there would be a million of them between two lines of a real run."""
    parts = Parts(torch.device("cuda"))
    for _ in range(1000):
        with parts("student"):
            device.run(0.5)
        device.reached = device.queued - 1.0  # the host runs two blocks ahead
    assert len(parts._spans) < 5
    assert seconds(parts) == pytest.approx({"student": 500.0})


def test_overlapped_communication_counts_where_computing_stands_still(device: Device, backend: Backend) -> None:
    class Optimizer:
        def average_tensor(self, tensor: object, dtype: object) -> None:
            device.run(0.1)  # the computing stream waits for the reduction before
            backend.all_reduce(0.0)  # on the other stream: nothing queued here

        def independent_gradient_partition_epilogue(self) -> None:
            self.average_tensor(None, None)
            device.run(0.3)

    engine = SimpleNamespace(optimizer=Optimizer(), zero_overlap_comm=lambda: True)
    parts = Parts(torch.device("cuda"))
    with communication_timed(engine, parts), parts("backward"):
        device.run(1.0)
        engine.optimizer.average_tensor(None, None)
        engine.optimizer.independent_gradient_partition_epilogue()
    assert seconds(parts) == pytest.approx({"backward": 1.0, "communication": 0.5})
    assert vars(engine.optimizer) == {}
