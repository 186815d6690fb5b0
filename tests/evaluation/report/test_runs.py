"""Run folders read as they are found: whole, torn, resumed, stopped, going."""

import json
import math
import os
import time
from pathlib import Path

import pytest

from evaluation.report.runs import comparable, read_run, read_runs
from tests.evaluation.report.run_folders import (
    REAL_CURVE,
    TEACHER_ACCURACY,
    TOKENS_PER_UPDATE,
    evaluation_line,
    training_line,
    write_run,
)


def append(folder: Path, text: str) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(text)


def test_what_a_run_has_written_is_read(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", end="FINISHED"), "a")
    assert [e.update for e in run.evaluations] == [0, *REAL_CURVE]
    assert [e.tokens for e in run.evaluations] == [TOKENS_PER_UPDATE * update for update in (0, *REAL_CURVE)]
    assert run.evaluations[-1].figures["mlm_accuracy"] == 0.179
    assert run.retention(run.evaluations[-1]) == pytest.approx(0.179 / TEACHER_ACCURACY)
    assert (run.update, run.planned_updates, run.is_complete, run.state) == (560, 560, True, "finished")
    assert run.planned_tokens == 560 * TOKENS_PER_UPDATE


def test_tokens_of_an_evaluation_between_two_lines_are_interpolated(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", {50: 0.1}, until=60, log_every=40), "a")
    assert run.evaluations[-1].tokens == 50 * TOKENS_PER_UPDATE


def test_a_line_that_is_being_written_is_left_for_the_next_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", until=160)
    append(folder, json.dumps(training_line(180))[:-25])
    assert read_run(folder, "a").update == 160


def test_bytes_that_are_no_text_and_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", until=160)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n17\n[]\n{"no": "update"}\n{"update": null}\n')
    assert read_run(folder, "a").update == 160


def test_updates_made_again_take_the_place_of_the_first_ones(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", until=160)
    again = [training_line(100, loss=1.5), evaluation_line(120, 0.2), training_line(120, loss=1.25)]
    append(folder, "".join(json.dumps(line) + "\n" for line in again))
    run = read_run(folder, "a")
    assert [line["update"] for line in run.lines] == [20, 40, 60, 80, 100, 120]
    assert [line["loss"] for line in run.lines[-2:]] == [1.5, 1.25]
    assert [(e.update, e.figures["mlm_accuracy"]) for e in run.evaluations[1:]] == [(80, 0.146), (120, 0.2)]


def test_null_is_nan(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", until=80)
    append(folder, json.dumps(evaluation_line(90, None)) + "\n")
    run = read_run(folder, "a")
    assert math.isnan(run.evaluations[-1].figures["mlm_accuracy"])
    assert math.isnan(run.retention(run.evaluations[-1]))


def test_epochs_decide_the_planned_updates(tmp_path: Path) -> None:
    """20,000 sequences in updates of 64: 2.5 epochs are 781 whole updates."""
    run = read_run(write_run(tmp_path / "a", until=40, max_updates=0, epochs=2.5), "a")
    assert run.planned_updates == 781
    early = read_run(write_run(tmp_path / "b", {}, until=0, max_updates=0), "b")
    assert early.planned_updates is None
    assert math.isnan(early.planned_tokens)


def test_a_run_without_held_out_text_has_no_retention(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", eval_data="", has_teacher=False), "a")
    assert run.evaluations == []
    assert run.teacher == {}


def test_state_in_words(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path / "going", until=80), "going").state == "going"
    stopped = read_run(write_run(tmp_path / "stopped", until=80, end="PREEMPTED"), "stopped")
    assert stopped.state == "ended early (PREEMPTED, exit code 75)"
    resumed = write_run(tmp_path / "resumed", until=80, end="PREEMPTED")
    with (resumed / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"attempt": 2, "start_update": 80, "num_ranks": 2}) + "\n")
        file.write(json.dumps({"attempt": 2, "committed": 100}) + "\n")
    assert read_run(resumed, "resumed").state == "going"
    killed = write_run(tmp_path / "killed", until=80)
    for path in killed.iterdir():
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert read_run(killed, "killed").state == "silent for 2.0 hours, without an end on record"


def test_incidents_are_read_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "incidents").mkdir()
    (folder / "incidents" / "update-00000017.json").write_text(json.dumps({"update": 17, "reason": "not finite"}))
    (folder / "incidents" / "update-00000018.json").write_text('{"upd')
    reasons = [incident["reason"] for incident in read_run(folder, "a").incidents]
    assert reasons == ["not finite", "update-00000018.json cannot be read"]


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", '{"flags": []}', '{"flags": {"objective": "distil"}}', "\xff"]
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="is no run folder"):
        read_run(folder, "other")


def test_runs_of_the_same_folder_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / part) for part in ("first/a", "second/a", "second/b")]
    assert [run.name for run in read_runs(folders)] == ["first/a", "second/a", "b"]


def test_paths_of_the_flags_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run started in PROJECT with --output runs/a and --teacher ../models/t."""
    (tmp_path / "models" / "t").mkdir(parents=True)
    folder = write_run(tmp_path / "project" / "runs" / "a")
    config = json.loads((folder / "config.json").read_text())
    config["flags"] |= {"output": "runs/a", "teacher": "../models/t"}
    (folder / "config.json").write_text(json.dumps(config))
    run = read_run(folder, "a")
    assert run.find("../models/t") == str(tmp_path / "models" / "t")
    assert run.find("bert-base-uncased") == "bert-base-uncased"
    monkeypatch.chdir(folder.parent)
    assert read_run(Path("a"), "a").find("../models/t") == str(tmp_path / "models" / "t")


def test_only_runs_of_one_teacher_text_and_mask_stand_side_by_side(tmp_path: Path) -> None:
    runs = read_runs(
        [
            write_run(tmp_path / "pretraining", objective="mlm"),
            write_run(tmp_path / "a"),
            write_run(tmp_path / "uniform", mask_smoothing=0.0),
            write_run(tmp_path / "random", student_init="random"),
            write_run(tmp_path / "other", teacher="teachers/other"),
        ]
    )
    groups = [[run.name for run in group.runs] for group in comparable(runs)]
    assert groups == [["a", "random"], ["uniform"], ["other"], ["pretraining"]]
