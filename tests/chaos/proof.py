"""The proof that nothing was lost: a resumed run equals the one that was never stopped, bit for bit.

The uninterrupted run keeps the checkpoint of every update. What a fault leaves behind must be byte-identical to it
(sha256 of every file, and every line of metrics up to there), so that resuming two such folders is the same computation. It
is therefore carried out once for each distinct state: the update of the checkpoint, how the journal ends, and what a crash
left lying about.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.chaos.harness import Outcome, committed_updates, furthest_update, last_end, launch, newest_checkpoint
from tests.conftest import Toy
from tests.launch import metrics
from training.manifest import read_manifest
from training.parts import SHARES

UPDATES, SAVES, EVALUATES = 8, 3, 4
CLOCKS = {"tokens_per_second", "mfu", "peak_memory_bytes", *SHARES}
State = tuple[int, str, bool, bool]


def train_flags(toy: Toy, config: Path, output: Path, **changes: object) -> list[object]:
    """Of a run of `UPDATES` updates of several micro-batches; `changes` name flags, None leaves one out."""
    values: dict[str, object] = {
        "ds_config": config,
        "teacher": toy.teacher,
        "data": toy.train,
        "eval_data": toy.heldout,
        "eval_sequences": 64,
        "max_length": 40,
        "max_updates": UPDATES,
        "log_every": 1,
        "eval_every": EVALUATES,
        "checkpoint_every": SAVES,
        "hang_timeout": 8,
        "output": output,
        **changes,
    }
    named = [text for name, value in values.items() if value is not None for text in (f"--{name}", value)]
    return [*named, "--no_check_teacher"]


@dataclass
class Proof:
    """Holds the uninterrupted run and the verdicts on states that were resumed already."""

    toy: Toy
    config: Path
    whole: Path
    """Run folder of the uninterrupted run on the same number of ranks, with the checkpoint of every update."""
    changes: dict[str, object] = field(default_factory=dict)
    """Flags in which it differs."""
    resumed: dict[State, str] = field(default_factory=dict)

    def flags(self, output: Path, **changes: object) -> list[object]:
        return train_flags(self.toy, self.config, output, **self.changes | changes)

    def lost(self, folder: Path) -> int:
        """Updates that were made and must be made again."""
        newest = newest_checkpoint(folder)
        kept = read_manifest(newest).update if newest else 0
        # A save that the log calls committed must still be there; the log may miss the last one.
        assert kept >= max(committed_updates(folder), default=0), f"a committed checkpoint is gone: {folder}"
        return furthest_update(folder) - kept

    def check(self, folder: Path, launcher: str) -> str:
        """Resume `folder`, or find that the same state was resumed before; how it was proved. Asserts."""
        newest = newest_checkpoint(folder)
        update = 0
        if newest is not None:
            update = read_manifest(newest).update
            assert read_manifest(newest) == read_manifest(self.whole / "checkpoints" / newest.name), newest
            assert_same_lines(folder, self.whole, update)
        is_partial = any((folder / "checkpoints").glob("*.partial"))
        lock = folder / "lock"
        state = (update, last_end(folder), is_partial, lock.exists() and lock.stat().st_size > 0)
        if state in self.resumed:
            return f"as {self.resumed[state]}"
        self.resume(folder, launcher)
        self.resumed[state] = f"{launcher} from {update}"
        shutil.rmtree(folder)
        return f"resumed from {update}"

    def resume(self, folder: Path, launcher: str, **changes: object) -> Outcome:
        """The run goes on in `folder` and ends as if nothing had happened. Asserts."""
        notes = folder.with_name(f"{folder.name}.resume-{len(list(folder.parent.iterdir()))}")
        outcome = launch(launcher, [*self.flags(folder, **changes), "--resume"], notes)
        assert outcome.launcher_code == 0, outcome.output[-4000:]
        assert set(outcome.rank_codes.values()) == {0}, outcome
        assert last_end(folder) == "FINISHED"
        assert not list((folder / "checkpoints").glob("*.partial"))
        newest = newest_checkpoint(folder)
        pointer = json.loads((folder / "checkpoints/latest.json").read_text())
        assert newest is not None
        assert pointer == {"checkpoint": newest.name}
        assert_same_run(folder, self.whole)
        return outcome


def figures(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock decides."""
    if not (folder / "metrics.jsonl").exists():
        return []
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in metrics(folder)]


def assert_same_lines(folder: Path, whole: Path, update: int) -> None:
    """Up to that update; a line that a crash cut short is past it."""
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [json.loads(line) for line in lines if line.endswith("\n")]
    expected = [line for line in figures(whole) if line["update"] <= update]
    got = [{name: value for name, value in line.items() if name not in CLOCKS} for line in kept]
    assert [line for line in got if line["update"] <= update] == expected


def assert_same_run(folder: Path, whole: Path) -> None:
    """Every loss, and every bit of the final weights."""
    assert figures(folder) == figures(whole)
    expected, got = (load_file(run / "student/model.safetensors") for run in (whole, folder))
    assert expected.keys() == got.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
