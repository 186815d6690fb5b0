"""What a run must remember over a restart, putting it back, and which checkpoint may be continued."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from data.batching import UpdateWindows
from data.config import DataConfig
from inputs import Inputs
from model.config import ObjectiveConfig
from training.attempts import last_committed
from training.checkpoint import Checkpoints
from training.config import RunConfig
from training.distributed import Ranks, agree, from_first
from training.ds_config import DeepSpeedConfig
from training.files import write_json
from training.lifecycle import tell
from training.poison import Poison, SpikeRule
from training.report import Report
from training.resume_point import Verified, check_identity, find_checkpoint
from training.run_folder import RunFolder
from training.state import (
    OptimizerState,
    engine_scalars,
    engine_tensors,
    generators,
    read_engine,
    restore_engine,
    restore_generators,
)
from training.tensor_file import SavedParts

_REWINDS = "rewinds.json"
DECIDES_AN_UPDATE = ("optimizer", "gradient_clipping", "bf16", "fp16", "data_types", "communication_data_type")
"""Keys of the DeepSpeed JSON that a resumed run must share with the one it continues; the others only lay it out."""


class Config(Protocol):
    """The flags that the loop reads."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def objective(self) -> ObjectiveConfig: ...


class Run(Protocol):
    """What the functions here and in incidents.py read and change of the loop (trainer.py)."""

    config: Config
    ds: DeepSpeedConfig
    inputs: Inputs
    ranks: Ranks
    folder: Path
    num_updates: int
    engine: Any
    windows: UpdateWindows
    report: Report
    poison: Poison
    spikes: SpikeRule
    checkpoints: Checkpoints
    log: RunFolder | None

    update: int
    """Updates that are over."""
    tokens: int
    skipped_in_a_row: int
    rewinds: int
    best: dict[str, float]
    """The held-out figures with the lowest loss so far, and their update."""
    generators: dict[str, torch.Tensor]
    settled: torch.cuda.Event
    """The random generators, and on CUDA where the device was, at the end of the last update."""
    spike: str
    """Why the update in progress is refused; empty where it is not."""

    def say(self, line: str) -> None: ...
    def open_log(self) -> None: ...
    def settle(self) -> None: ...


def describe_state(run: Run) -> dict[str, Any]:
    """What is alike on every rank and not a tensor, for JSON."""
    return {
        "update": run.update,
        "tokens": run.tokens,
        "num_ranks": run.ranks.num_ranks,
        "sequences_per_micro_batch": run.ds.sequences_per_micro_batch,
        "updates_in_sums": run.report.sums.updates,
        "skipped_in_a_row": run.skipped_in_a_row,
        "left_out": list(run.windows.left_out),
        "rewinds": run.rewinds,
        "last_losses": list(run.spikes.losses),
        "best": run.best,
        "engine": engine_scalars(run.engine),
        "identity": identity(run),
        "data": list(run.config.data.data),
        "versions": versions(),
    }


def state_tensors(run: Run) -> dict[str, torch.Tensor]:
    """This rank's part of what a checkpoint holds, at the end of the last update."""
    return {**engine_tensors(run.engine), **run.generators, "losses": run.report.sums.state()}


def snapshot(run: Run) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a checkpoint of the last update holds, though another one has begun, perhaps on a stream that never ends."""
    if run.ranks.device.type == "cuda":
        run.settled.synchronize()
        torch.cuda.set_stream(torch.cuda.Stream(run.ranks.device))
    return describe_state(run), state_tensors(run)


def describe_config(run: Run) -> dict[str, Any]:
    """What config.json records."""
    assert dataclasses.is_dataclass(run.config)
    flags = {k: v for part in dataclasses.asdict(run.config).values() for k, v in part.items()}
    return {"flags": flags, "ds_config": run.ds.raw, "num_ranks": run.ranks.num_ranks, "versions": versions()}


def find_resumable(run: Run) -> Verified | None:
    """Together: the newest intact checkpoint, or None where the run has none yet.

    Errors: ValueError where none of those that exist is intact, or the newest belongs to another run.
    """
    say = partial(tell, stream=sys.stdout) if run.ranks.is_first else lambda line: None
    found = find_checkpoint(run.folder / "checkpoints", run.ranks, say)
    if found is None:
        committed = from_first(run.ranks, agree(run.ranks, lambda: last_committed(run.folder)))
        if committed:
            raise ValueError(
                f"--resume: {run.folder / 'checkpoints'} holds no checkpoint, but one of update {committed} was committed "
                "there: is its file system mounted? To start over, choose another --output"
            )
        say(f"--resume: {run.folder} has no checkpoint yet, starting at update 0")
        return None
    _check_data(found, run)
    check_identity(found, identity(run))
    return found


def _check_data(found: Verified, run: Run) -> None:
    """Before the rest of the identity, to name corpora rather than their sha256.

    Errors: ValueError where the checkpoint is of another blend: its stream would be another one.
    """
    saved = found.state["identity"]
    if any(saved.get(name) != value for name, value in run.inputs.blend.identity().items()):
        trained, given = " ".join(found.state.get("data", ["another corpus"])), " ".join(run.config.data.data)
        now = "which has other contents by now" if trained == given else f"not {given}"
        raise ValueError(
            f"--resume: {found.folder} belongs to another run: on --data {trained}, {now}. Corpora, their order and their "
            "weights must stay as they were; start a run on others in a new --output"
        )


def restore(run: Run, checkpoint: Verified) -> None:
    """Together: this rank's part of a checkpoint, whatever number of ranks saved it."""
    # Reading may fail on one rank alone, so all agree on it before the first collective.
    parts, losses, states = agree(run.ranks, lambda: _read_parts(run, checkpoint))
    state, remembered = checkpoint.state, from_first(run.ranks, agree(run.ranks, lambda: _read_rewinds(run.folder)))
    restore_engine(run.engine, parts, state["engine"])
    run.update, run.tokens = state["update"], state["tokens"]
    run.skipped_in_a_row, run.best = state["skipped_in_a_row"], state["best"]
    run.rewinds = max(state["rewinds"], remembered["rewinds"])
    run.windows.left_out = tuple(sorted({*state["left_out"], *remembered["left_out"]}))
    run.spikes.remember(state["last_losses"])
    if states:
        restore_generators(run.ranks.device, states)
    else:
        torch.manual_seed((run.config.run.seed * 100_003 + run.ranks.rank) * 1_000_003 + run.update)
    run.report.sums.restore(losses, state["updates_in_sums"])
    run.settle()


def _read_parts(run: Run, checkpoint: Verified) -> tuple[OptimizerState, torch.Tensor, dict[str, torch.Tensor]]:
    """This rank's part of the engine, its share of the sums of losses, its generators (none where other ranks saved)."""
    saved, rank = SavedParts(checkpoint.folder, checkpoint.manifest.num_ranks), run.ranks.rank
    parts = read_engine(run.engine, saved)
    if checkpoint.manifest.num_ranks == run.ranks.num_ranks:
        states = {name: saved.of_rank(rank, name) for name in generators(run.ranks.device)}
        return parts, saved.of_rank(rank, "losses"), states
    shares = [saved.of_rank(old, "losses") for old in range(checkpoint.manifest.num_ranks)]
    return parts, sum(shares[1:], shares[0]) if rank == 0 else torch.zeros_like(shares[0]), {}


def remember_rewind(run: Run) -> None:
    """For the next start: the checkpoint that was gone back to cannot know of it. Errors: OSError."""
    if run.log is not None:
        write_json(run.folder / _REWINDS, {"rewinds": run.rewinds, "left_out": list(run.windows.left_out)})


def _read_rewinds(folder: Path) -> dict[str, Any]:
    """
    Errors: ValueError, OSError.
    """
    path = folder / _REWINDS
    if not path.is_file():
        return {"rewinds": 0, "left_out": []}
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or record.keys() != {"rewinds", "left_out"}:
        raise ValueError(f"{path} is damaged: it must name rewinds and left_out. Restore it from a copy")
    return record


def identity(run: Run) -> dict[str, Any]:
    """What a resumed run must share with the one it continues."""
    return {
        **run.inputs.blend.identity(),
        "num_sequences": run.inputs.blend.num_sequences,
        "sequences_per_update": run.ds.sequences_per_update,
        "num_updates": run.num_updates,
        "seed": run.config.run.seed,
        "max_length": run.config.data.max_length,
        "mask_probability": run.config.data.mask_probability,
        "mask_smoothing": run.config.data.mask_smoothing,
        "student": dataclasses.asdict(run.inputs.student.config),
        "objective": dataclasses.asdict(run.config.objective),
        "teacher": run.inputs.teacher_sha256,
        "warmup_share": run.config.run.warmup_share,
        "ds_config": {key: run.ds.raw.get(key) for key in DECIDES_AN_UPDATE},
    }


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {name: sys.modules[name].__version__ for name in ("torch", "deepspeed")}
