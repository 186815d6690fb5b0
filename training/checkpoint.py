"""Checkpoints: DeepSpeed's files plus what it does not save, staged in a partial folder and renamed when whole.

    checkpoints/update-00000100/   DeepSpeed's shards, rng_rank000.pt of every rank, state.json
    checkpoints/latest.json        the newest complete one; written last

DeepSpeed's own `latest` is not used: it is written before the last rank is done.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from training.distributed import Ranks
from training.run_folder import write_json


def save_checkpoint(engine: Any, folder: Path, ranks: Ranks, state: dict[str, Any]) -> Path:
    """Every rank must call it. `state` is what a resumed run needs to know: at least `update` and `identity`."""
    final = folder / f"update-{state['update']:08d}"
    staging = folder / f"{final.name}.partial"
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (staging, final):  # the same update saved before a crash, or while resuming
            shutil.rmtree(leftover, ignore_errors=True)
    dist.barrier()
    engine.save_checkpoint(str(folder), tag=staging.name, save_latest=False)
    torch.save(_generators(ranks), staging / f"rng_rank{ranks.rank:03d}.pt")
    dist.barrier()
    if ranks.is_first:
        _check_complete(staging, ranks)
        write_json(staging / "state.json", state | {"num_ranks": ranks.num_ranks})
        os.replace(staging, final)
        previous = read_latest(folder)
        write_json(folder / "latest.json", {"checkpoint": final.name})
        for old in folder.glob("update-*"):  # the one before is kept: this one has not been read back yet
            if old not in (final, previous):
                shutil.rmtree(old, ignore_errors=True)
    dist.barrier()
    return final


def _check_complete(staging: Path, ranks: Ranks) -> None:
    absent = [rank for rank in range(ranks.num_ranks) if not (staging / f"rng_rank{rank:03d}.pt").is_file()]
    if absent:
        raise FileNotFoundError(
            f"checkpoint {staging} lacks the files of ranks {absent}: --output must be on a file system that all nodes share"
        )


def read_latest(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None where there is none."""
    pointer = folder / "latest.json"
    if not pointer.is_file():
        return None
    name = json.loads(pointer.read_text(encoding="utf-8")).get("checkpoint", "")
    checkpoint = folder / Path(name).name
    return checkpoint if (checkpoint / "state.json").is_file() else None


def read_state(folder: Path, ranks: Ranks, identity: dict[str, Any]) -> dict[str, Any]:
    """The state of the newest checkpoint under `folder`, checked against this launch.

    Raises:
        FileNotFoundError: nothing to resume from.
        ValueError: another number of ranks, or another stream of data: the resumed run would not be the same run.
    """
    checkpoint = read_latest(folder)
    if checkpoint is None:
        raise FileNotFoundError(
            f"--resume: no complete checkpoint in {folder}. Start without --resume, into a new --output"
        )
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    if state["num_ranks"] != ranks.num_ranks:
        raise ValueError(
            f"--resume: {checkpoint} was saved by {state['num_ranks']} ranks, this is {ranks.num_ranks}. "
            f"Start it with {state['num_ranks']} ranks"
        )
    changed = [
        f"{name} was {state['identity'].get(name)!r} and is {value!r}"
        for name, value in identity.items()
        if state["identity"].get(name) != value
    ]
    if changed:
        raise ValueError(f"--resume: {checkpoint} belongs to another run: {'; '.join(changed)}")
    return state | {"checkpoint": checkpoint.name}


def load_checkpoint(engine: Any, folder: Path, ranks: Ranks, state: dict[str, Any]) -> None:
    """Weights, optimizer, schedule and this rank's random generators, from the checkpoint that `read_state` chose."""
    path, _ = engine.load_checkpoint(str(folder), tag=state["checkpoint"])
    if path is None:
        raise RuntimeError(f"DeepSpeed loaded nothing from {folder / state['checkpoint']}")
    generators = torch.load(folder / state["checkpoint"] / f"rng_rank{ranks.rank:03d}.pt", weights_only=True)
    torch.set_rng_state(generators["cpu"])
    if ranks.device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], ranks.device)


def _generators(ranks: Ranks) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(ranks.device)
    return states
