"""How ranks tell each other something: by collectives or, while one of those is stuck, through the process group's store."""

import json
import time
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch.distributed as dist

from training.distributed import Ranks, from_first, gather_objects

Value = TypeVar("Value")


class Exchange(Protocol):
    """Every rank must call each method in the same order. Values are what JSON can hold."""

    def from_first(self, value: Value) -> Value:
        """Rank 0's value."""
        ...

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value."""
        ...


class Collectives:
    """Through the process group."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def from_first(self, value: Value) -> Value:
        return from_first(self.ranks, value)

    def gather(self, value: Value) -> list[Value]:
        return gather_objects(self.ranks, value)


class Store:
    """Through the key-value store with which the ranks found each other; no rank's collectives are touched."""

    def __init__(self, ranks: Ranks, name: str, timeout: timedelta) -> None:
        self.ranks, self._name, self._timeout, self._calls = ranks, name, timeout, 0
        self._store: Any = dist.distributed_c10d._get_default_store()

    def from_first(self, value: Value) -> Value:
        return self.gather(value)[0]

    def gather(self, value: Value) -> list[Value]:
        self._calls += 1
        prefix = f"{self._name}/{self._calls}"
        self._store.set(f"{prefix}/{self.ranks.rank}", json.dumps(value))
        if self.ranks.is_first:  # one reads all, so that a thousand ranks do not ask a million times
            keys = [f"{prefix}/{rank}" for rank in range(self.ranks.num_ranks)]
            self._store.wait(keys, self._timeout)
            self._store.set(f"{prefix}/all", json.dumps([json.loads(self._store.get(key)) for key in keys]))
        self._store.wait([f"{prefix}/all"], self._timeout)
        return json.loads(self._store.get(f"{prefix}/all"))

    def wait_for_readers(self) -> None:
        """All ranks have read all they asked for; rank 0 returns last, because the store may live in its process."""
        key = f"{self._name}/readers"
        self._store.add(key, 1)
        deadline = time.monotonic() + self._timeout.total_seconds()
        while self.ranks.is_first and self._store.add(key, 0) < self.ranks.num_ranks:
            if time.monotonic() > deadline:
                raise TimeoutError("not all ranks are ready to start again")
            time.sleep(0.1)
