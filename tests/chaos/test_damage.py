"""Checkpoints that were damaged on the disk: the loader goes back to one that verifies, and says what it skipped and why."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.chaos.conftest import Record
from tests.chaos.harness import launch
from tests.chaos.proof import Proof
from tests.launch import free_port
from training.distributed import Ranks
from training.lifecycle import ExitCode
from training.resume_point import find_checkpoint

FILES = ("rank_000.safetensors", "rank_001.safetensors", "state.json", "manifest.json")


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    """To a copy with the right bytes, which may change any time."""
    copy = path.with_name("elsewhere")
    path.rename(copy)
    path.symlink_to(copy)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut to half": truncate,
    "one bit flipped": flip,
    "empty": empty,
    "missing": Path.unlink,
    "a link": link,
}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield Ranks(rank=0, num_ranks=1, device=torch.device("cpu"))
    dist.destroy_process_group()


@pytest.fixture
def folder(proof: Proof, tmp_path: Path) -> Path:
    """A run folder with the checkpoints of updates 3 and 6 of the uninterrupted run, as if killed after 7."""
    run = tmp_path / "run"
    ignored = shutil.ignore_patterns("student", "lock", "update-*", "stacks")
    shutil.copytree(proof.whole, run, ignore=ignored)
    for update in (3, 6):
        name = f"checkpoints/update-{update:08d}"
        shutil.copytree(proof.whole / name, run / name)
    (run / "checkpoints/latest.json").write_text(json.dumps({"checkpoint": "update-00000006"}))
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["update"] <= 7))
    return run


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped(damage: str, name: str, folder: Path, ranks: Ranks, record: Record) -> None:
    newest, said = folder / "checkpoints/update-00000006", list[str]()
    DAMAGES[damage](newest / name)
    found = find_checkpoint(folder / "checkpoints", ranks, said.append)
    assert found is not None
    assert found.manifest.update == 3
    assert len(said) == 1
    assert "update-00000006 is skipped" in said[0]
    assert name in said[0]
    record(f"{name}: {damage}", f"back to 3: {said[0].split(': ', 2)[-1].replace(str(newest) + '/', '')}", "-", 3)


@pytest.mark.parametrize("content", ["", "{", '{"checkpoint": "update-00000099"}', '{"checkpoint": "../../elsewhere"}'])
def test_the_pointer_decides_nothing(content: str, folder: Path, ranks: Ranks) -> None:
    (folder / "checkpoints/latest.json").write_text(content)
    found = find_checkpoint(folder / "checkpoints", ranks, pytest.fail)
    assert found is not None
    assert found.manifest.update == 6


def test_a_run_goes_on_from_before_the_damage(folder: Path, proof: Proof, record: Record) -> None:
    """With the leftover of a save of the same update, and a pointer that is cut short."""
    flip(folder / "checkpoints/update-00000006/rank_001.safetensors")
    leftover = folder / "checkpoints/update-00000006.0badcafe.partial"
    leftover.mkdir()
    (leftover / "rank_000.safetensors").write_bytes(b"half")
    truncate(folder / "checkpoints/latest.json")
    outcome = proof.resume(folder, "torchrun")
    assert "checkpoint update-00000006 is skipped" in outcome.output
    assert "rank_001.safetensors was changed" in outcome.output
    assert json.loads((folder / "checkpoints/latest.json").read_text()) == {"checkpoint": "update-00000008"}
    record("one bit flipped, leftover of a save, pointer cut, torchrun", "resumed from 3", outcome.launcher_code, 3)


def test_nothing_starts_over_where_nothing_verifies(folder: Path, proof: Proof, record: Record, tmp_path: Path) -> None:
    for update in (3, 6):
        flip(folder / f"checkpoints/update-{update:08d}/state.json")
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    metrics = (folder / "metrics.jsonl").read_bytes()
    outcome = launch("torchrun", [*proof.flags(folder), "--resume"], tmp_path / "notes")
    assert set(outcome.rank_codes.values()) == {ExitCode.BAD_INPUT}, outcome
    assert "none of the 2 checkpoints" in outcome.output
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "metrics.jsonl").read_bytes() == metrics
    record("no checkpoint verifies, torchrun", "refused, nothing touched", f"{outcome.launcher_code} (ranks 2, 2)", 0)
