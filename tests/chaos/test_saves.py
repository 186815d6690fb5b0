"""A save that is killed at each of its system calls in turn, and disks that fail or are full."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Record
from tests.chaos.harness import Outcome, finish, launch, newest_checkpoint, start, wait_for
from tests.chaos.proof import Proof, train_flags
from training.lifecycle import ExitCode
from training.manifest import read_manifest

UPDATES, SAVES = 6, 3
CALLS = ("fsync", "write", "rename")
QUICK = {("begin", "rename"): 2}
"""What is killed in the ordinary suite, by its number: the rename that commits."""


@pytest.fixture(scope="module")
def alone(proof: Proof, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """An uninterrupted run of one rank, which python train.py is."""
    folder = tmp_path_factory.mktemp("alone")
    changes: dict[str, object] = {"max_updates": UPDATES, "eval_every": 100}
    whole = folder / "whole"
    flags = train_flags(proof.toy, proof.config, whole, checkpoint_every=1, keep_checkpoints=100, **changes)
    outcome = launch("python", flags, folder / "notes")
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    return Proof(proof.toy, proof.config, whole, changes=changes)


def traced(flags: list[object], notes: Path, where: str, update: int, injection: str) -> tuple[Outcome, bool]:
    """Start, and from the save of `update` on inject into the calls of one thread; whether any call was hit.

    `where` is "begin", the main thread as it begins the save, or "writer", the thread that writes it. strace counts the
    calls of a thread from the moment it is attached.
    """
    fault = {"target": "nobody", "phase": where, "update": update, "rank": 0}
    process = start("python", flags, notes, fault)
    wait_for(lambda: (notes / "fired").exists() or process.poll() is not None)
    thread = json.loads((notes / "fired").read_text())["thread"]
    calls = injection.split(":")[0]
    log = notes / "strace"
    command = ["strace", "-p", str(thread), "-e", f"trace={calls}", "-e", f"inject={injection}", "-o", str(log)]
    with (notes / "strace.err").open("w") as errors, subprocess.Popen(command, stderr=errors) as tracer:
        wait_for(lambda: "attached" in (notes / "strace.err").read_text() or tracer.poll() is not None)
        (notes / "go").touch()
        outcome = finish(process, notes)
    return outcome, "(INJECTED)" in log.read_text() or "+++ killed by SIGKILL" in log.read_text()


@pytest.mark.parametrize(("where", "calls"), [(w, c) for w in ("begin", "writer") for c in CALLS])
@pytest.mark.matrix
def test_killed_at_every_call(where: str, calls: str, alone: Proof, record: Record, tmp_path: Path) -> None:
    """From the begin of the last save to the end of the run, which also writes the student."""
    resumed_from: list[int] = []
    for number in range(1, 200):
        update = kill_at(where, calls, number, alone, tmp_path / str(number))
        if update is None:
            break
        resumed_from.append(update)
    else:
        raise AssertionError("no end of calls")
    if calls == "rename" and where == "writer":
        assert not resumed_from  # it renames nothing
        return
    assert resumed_from
    assert set(resumed_from) <= {SAVES, UPDATES}
    assert resumed_from == sorted(resumed_from)  # once committed it stays
    kept = f"{resumed_from.count(SAVES)} times the checkpoint before, {resumed_from.count(UPDATES)} times the new one"
    what = "main thread, to the end of the run" if where == "begin" else "writing thread"
    record(
        f"SIGKILL at each {calls} of a save ({what}), {len(resumed_from)} starts, python",
        f"{kept}; each resumed or as one resumed",
        -9,
        f"<= {SAVES}",
    )


@pytest.mark.parametrize(("where", "calls"), QUICK)
def test_killed_at_one_call(where: str, calls: str, alone: Proof, tmp_path: Path) -> None:
    assert kill_at(where, calls, QUICK[where, calls], alone, tmp_path) == SAVES


def kill_at(where: str, calls: str, number: int, alone: Proof, folder: Path) -> int | None:
    """The update that is left to resume from; None where there are fewer calls."""
    folder.mkdir(exist_ok=True)
    run = folder / "run"
    outcome, is_hit = traced(alone.flags(run), folder / "notes", where, UPDATES, f"{calls}:signal=KILL:when={number}")
    if not is_hit:
        assert outcome.launcher_code == 0, outcome.output[-3000:]
        return None
    assert outcome.launcher_code == -9, outcome
    newest = newest_checkpoint(run)
    assert newest is not None
    update = read_manifest(newest).update
    alone.check(run, "python")
    return update


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("calls", "where", "injection"),
    [
        ("fsync", "writer", "error=EIO:when=1"),
        ("fsync", "begin", "error=EIO:when=2"),
        ("write", "writer", "error=ENOSPC:when=3"),
        ("rename", "begin", "error=EIO:when=1"),
    ],
)
def test_a_failed_save_costs_a_warning(
    calls: str, where: str, injection: str, alone: Proof, record: Record, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome, is_hit = traced(alone.flags(run), tmp_path / "notes", where, SAVES, f"{calls}:{injection}")
    assert is_hit
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    assert f"the checkpoint of update {SAVES} could not be written" in outcome.output
    assert [path.name for path in (run / "checkpoints").iterdir() if path.is_dir()] == [f"update-{UPDATES:08d}"]
    assert read_manifest(run / f"checkpoints/update-{UPDATES:08d}").update == UPDATES
    name = f"{injection.split(':')[0].removeprefix('error=')} of {calls} in a save ({where}), python"
    record(name, "a warning; training goes on, the next save is whole", outcome.launcher_code, 0)


@pytest.mark.slow
def test_saves_that_fail_in_a_row_end_the_run(alone: Proof, record: Record, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = [*alone.flags(run, checkpoint_every=1), "--max_failed_saves", 2]
    outcome, is_hit = traced(flags, tmp_path / "notes", "begin", 4, "fsync:error=EIO:when=1+")
    assert is_hit
    assert outcome.launcher_code == ExitCode.SAVE_FAILED, outcome.output[-3000:]
    assert "2 saves in a row have failed" in outcome.output
    lost = alone.lost(run)
    assert lost <= 3
    record("EIO of every fsync, python", f"exit 4, {alone.check(run, 'python')}", outcome.launcher_code, lost)


@pytest.fixture
def small_disk(alone: Proof, tmp_path: Path) -> Iterator[Path]:
    """Of a run, its folder of checkpoints on a disk on which one checkpoint fits and not two."""
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    size = sum(path.stat().st_size for path in (alone.whole / f"checkpoints/update-{SAVES:08d}").iterdir())
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(size * 1.7)}", "chaos", str(folder)]).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.matrix
def test_a_full_disk(alone: Proof, small_disk: Path, record: Record, tmp_path: Path) -> None:
    """The checkpoint before is never given up for the next."""
    run = small_disk.parent
    flags = [*alone.flags(run, checkpoint_every=1), "--max_failed_saves", 2]
    outcome = launch("python", flags, tmp_path / "notes")
    assert outcome.launcher_code == ExitCode.SAVE_FAILED, outcome.output[-3000:]
    assert "No space left on device" in outcome.output
    lost = alone.lost(run)
    assert 2 <= lost <= 4  # a save is found to have failed up to an update later
    subprocess.run(["mount", "-o", "remount,size=1G", str(small_disk)], check=True)
    alone.resume(run, "python")
    record("checkpoints on a full disk (tmpfs), python", "exit 4, resumed with room", outcome.launcher_code, lost)
