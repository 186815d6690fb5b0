"""Numbers that go wrong on one rank, and a corpus that goes away."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Record
from tests.chaos.harness import Outcome, last_end, launch
from tests.chaos.proof import SAVES, UPDATES, Proof, figures
from tests.chaos.test_signals import describe
from training.lifecycle import ExitCode


def poisoned(proof: Proof, folder: Path, updates: list[int], *more: object) -> Outcome:
    """NaN in the loss of rank 1 in these windows."""
    fault = {"target": "loss", "phase": "", "update": -1, "rank": 1, "updates": updates}
    outcome = launch("torchrun", [*proof.flags(folder), *more], folder.with_name("notes"), fault)
    assert outcome.has_fired
    return outcome


def incident(folder: Path, update: int) -> dict[str, Any]:
    return json.loads((folder / f"incidents/update-{update:08d}.json").read_text())


def losses(folder: Path) -> dict[int, float]:
    return {line["update"]: line["loss"] for line in figures(folder) if "loss" in line}


def test_a_poisoned_update_is_skipped_and_named(proof: Proof, record: Record, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = poisoned(proof, folder, [4])
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    found = incident(folder, 5)
    assert (found["update"], found["window"]) == (5, 4)
    assert {entry["rank"] for entry in found["micro_batches"]} == {1}
    assert len(found["micro_batches"]) == 3
    fired = json.loads((tmp_path / "notes/fired").read_text())  # of its last micro-batch
    assert found["micro_batches"][-1]["sequence_ids"] == fired
    assert set(fired) < set(found["sequence_ids"])
    assert found["micro_batches"][-1]["sequence"] == fired  # the only corpus
    assert (set(found["corpus"]), found["sequence"]) == ({str(proof.toy.train)}, found["sequence_ids"])
    got, expected = losses(folder), losses(proof.whole)
    assert [got[update] for update in range(1, 5)] == [expected[update] for update in range(1, 5)]
    assert all(got[update] > 0 for update in (6, 7, 8))  # finite: the weights were not touched
    record("NaN on one rank in one update, torchrun", "skipped, rank and sequences named", describe(outcome), 0)


@pytest.mark.matrix
def test_too_many_skipped_updates_end_the_run(proof: Proof, record: Record, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = poisoned(proof, folder, [4, 5, 6], "--max_skipped_updates", 2)
    assert set(outcome.rank_codes.values()) == {ExitCode.DIVERGED}, outcome.output[-3000:]
    assert last_end(folder) == "DIVERGED"
    lost = proof.lost(folder)
    assert lost <= SAVES
    record(
        "NaN on one rank, 2 updates in a row, --max_skipped_updates 2, torchrun",
        f"DIVERGED, {proof.check(folder, 'torchrun')}",
        describe(outcome),
        lost,
    )


def test_going_back_leaves_the_sequences_out(proof: Proof, record: Record, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = poisoned(proof, folder, [4, 5], "--max_skipped_updates", 2, "--rewinds", 1)
    assert outcome.launcher_code == 0, outcome.output[-3000:]
    assert "rewound to update 3; windows [4, 5] are left out (1 of 1 times)" in outcome.output
    got, expected = losses(folder), losses(proof.whole)
    assert list(got) == list(range(1, UPDATES + 1))
    assert [got[update] for update in range(1, 5)] == [expected[update] for update in range(1, 5)]
    assert got[5] != expected[5]  # other sequences
    record("the same with --rewinds 1, torchrun", "rewound to 3, windows 4 and 5 left out", describe(outcome), 3)


def test_weights_that_differ_on_one_rank_are_found(proof: Proof, record: Record, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fault = {"target": "weights", "phase": "", "update": -1, "rank": 1, "updates": [4]}
    flags = [*proof.flags(folder), "--check_weights_every", 1]
    outcome = launch("torchrun", flags, tmp_path / "notes", fault)
    assert outcome.has_fired
    assert set(outcome.rank_codes.values()) == {ExitCode.RANKS_DISAGREE}, outcome.output[-3000:]
    assert last_end(folder) == "RANKS_DISAGREE"
    assert "after update 5 the weights of ranks" in outcome.output
    lost = proof.lost(folder)
    record(
        "one weight changed on one rank, --check_weights_every 1, torchrun",
        f"RANKS_DISAGREE, {proof.check(folder, 'torchrun')}",
        describe(outcome),
        lost,
    )


@pytest.mark.slow
def test_a_corpus_cut_short_under_its_map(proof: Proof, record: Record, tmp_path: Path) -> None:
    """The file is named, and once it is back the run goes on."""
    corpus = tmp_path / "corpus"
    shutil.copytree(proof.toy.train.parent, corpus)
    whole = Path(f"{proof.toy.train}.bin")
    cut = corpus / whole.name
    folder = tmp_path / "run"
    fault = {"target": "file", "path": str(cut), "phase": "forward", "update": 4, "rank": 1}
    flags = proof.flags(folder, data=corpus / proof.toy.train.name, prefetch=1)
    outcome = launch("torchrun", flags, tmp_path / "notes", fault)
    assert outcome.has_fired
    codes = set(outcome.rank_codes.values())  # None also for the bus error: it leaves without a line of Python
    assert codes <= {ExitCode.BAD_INPUT, ExitCode.FAILED, ExitCode.PREEMPTED, None}, outcome.output[-3000:]
    lost_map = f"exitcode  : {ExitCode.MAPPED_FILE_LOST:d} "
    assert lost_map in outcome.output or f"{cut} had" in outcome.output, outcome.output[-3000:]
    lost, end = proof.lost(folder), last_end(folder)
    shutil.copyfile(whole, cut)
    proof.resume(folder, "torchrun", data=corpus / proof.toy.train.name)
    record(
        "the corpus cut short under its map, torchrun", f"{end}, resumed with the file back", describe(outcome), lost
    )
