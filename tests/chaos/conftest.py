"""What every test here shares: the uninterrupted run, a SLURM, and the table of outcomes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import CLUSTER, launch
from tests.chaos.proof import Proof, train_flags
from tests.conftest import Toy
from tests.launch import ds_config
from tests.slurm.cluster import Cluster, why_not

TABLE = "CHAOS_TABLE"
"""Environment variable naming the file that rows of the table are appended to; without it there is no table."""
Record = Callable[[str, str, object, object], None]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The whole matrix takes an hour or two, and is run for its table."""
    if TABLE in os.environ:
        return
    left_out = [item for item in items if item.get_closest_marker("matrix")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def proof(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    folder = tmp_path_factory.mktemp("chaos")
    config = ds_config(folder / "ds.json", train_batch_size=24)  # 3 micro-batches on each of two ranks
    whole = folder / "whole"
    flags = train_flags(toy, config, whole, checkpoint_every=1, keep_checkpoints=100)
    outcome = launch("torchrun", flags, folder / "notes")
    assert outcome.launcher_code == 0, outcome.output[-4000:]
    return Proof(toy, config, whole)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        CLUSTER.update(cluster.environment())
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def record() -> Record:
    """Adds a row to the table: what was done, what came of it, exit codes, updates lost."""

    def add(cell: str, outcome: str, codes: object, lost: object) -> None:
        if path := os.environ.get(TABLE):
            with Path(path).open("a") as file:
                file.write(json.dumps([cell, outcome, str(codes), str(lost)]) + "\n")

    return add
