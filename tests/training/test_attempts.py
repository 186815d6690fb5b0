"""The journal of starts and ends, and what it says about starting again."""

import json
from pathlib import Path

import pytest

from training.attempts import Attempts, read_records
from training.lifecycle import CrashLoopError, ExitCode


def attempt(folder: Path, start: int, end: ExitCode | None, update: int, max_crashes: int = 3) -> None:
    """One start and its end; None is a kill in `update`, of which only the heartbeat tells."""
    attempts = Attempts(folder)
    attempts.open(max_crashes)
    attempts.begin(start, 2)
    (folder / "heartbeats").mkdir(exist_ok=True)
    (folder / "heartbeats/rank_000.json").write_text(json.dumps({"update": update}))
    if end is not None:
        attempts.end(end, update)


def test_kills_in_the_same_update_are_a_loop(tmp_path: Path) -> None:
    for _ in range(3):
        attempt(tmp_path, 90, None, 97)
    with pytest.raises(
        CrashLoopError, match=r"update 98 has failed 3 times in a row \(the last time: KILLED\).*remove"
    ):
        Attempts(tmp_path).open(3)
    Attempts(tmp_path).open(4)
    ends = [record for record in read_records(tmp_path / "attempts.jsonl") if "end" in record]
    assert [(end["attempt"], end["end"], end["update"]) for end in ends] == [(n, "KILLED", 97) for n in (1, 2, 3)]


@pytest.mark.parametrize("code", [ExitCode.FAILED, ExitCode.HANG, ExitCode.DIVERGED, ExitCode.MAPPED_FILE_LOST])
def test_failures_that_say_so_count_too(tmp_path: Path, code: ExitCode) -> None:
    attempt(tmp_path, 90, code, 97)
    attempt(tmp_path, 90, None, 97)
    with pytest.raises(CrashLoopError):
        Attempts(tmp_path).open(2)


def test_what_interrupts_a_loop(tmp_path: Path) -> None:
    attempt(tmp_path, 90, None, 97)
    attempt(tmp_path, 90, None, 97)
    attempt(tmp_path, 90, None, 95)  # another update
    attempt(tmp_path, 90, None, 97)
    attempt(tmp_path, 90, ExitCode.PREEMPTED, 97)
    attempt(tmp_path, 97, None, 97)
    attempt(tmp_path, 97, None, 97)
    attempts = Attempts(tmp_path)
    attempts.open(3)
    assert attempts.number == 8
    with pytest.raises(CrashLoopError, match="failed 2 times"):
        Attempts(tmp_path).open(2)


def test_a_kill_before_the_first_heartbeat_is_at_the_start(tmp_path: Path) -> None:
    attempt(tmp_path, 0, ExitCode.PREEMPTED, 40)
    attempts = Attempts(tmp_path)
    attempts.open(3)
    attempts.begin(41, 2)
    Attempts(tmp_path).open(3)
    assert read_records(tmp_path / "attempts.jsonl")[-1]["update"] == 41


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    attempt(tmp_path, 0, ExitCode.PREEMPTED, 40)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"attempt": 2, "sta')
    attempt(tmp_path, 40, ExitCode.FINISHED, 50)
    records = read_records(tmp_path / "attempts.jsonl")
    assert [record["start_update"] for record in records if "start_update" in record] == [0, 40]
    assert [record["end"] for record in records if "end" in record] == ["PREEMPTED", "FINISHED"]
