"""The command: what it refuses, what it leaves out and says so."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.report.__main__ import main
from tests.evaluation.report.conftest import Reported
from tests.evaluation.report.run_folders import write_run
from tests.launch import ROOT, environment


def report(folder: Path, *arguments: object) -> str:
    assert main([*map(str, arguments), "--output", str(folder / "report")]) == 0
    return (folder / "report" / "report.md").read_text().replace("\\", "")


def test_what_is_absent_is_left_out_with_a_line(tmp_path: Path) -> None:
    text = report(tmp_path, write_run(tmp_path / "early", {}, until=40, end="PREEMPTED"))
    for line in (
        "early: too early for a forecast: 0 of 4 evaluations after the warm-up.",
        "Tasks are left out",
        "Sizes are left out",
        "Speed is left out",
        "Left out: no run has a student yet",
        "early: no incident on record.",
        "ended early (PREEMPTED, exit code 75)",
    ):
        assert line in text, line


def test_a_run_that_has_written_nothing_but_its_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "new")
    for name in ("metrics.jsonl", "attempts.jsonl", "log.txt"):
        (folder / name).unlink()
    text = report(tmp_path, folder)
    for line in (
        "new has no line of metrics yet.",
        "new has no evaluation yet.",
        "new has no attempts.jsonl.",
        "0 of 560",
    ):
        assert line in text, line


def test_a_run_without_held_out_text(tmp_path: Path) -> None:
    text = report(tmp_path, write_run(tmp_path / "blind", eval_data="", has_teacher=False, until=100))
    assert "There is no held-out text." in text
    assert "blind: no forecast without held-out text." in text


def test_a_student_whose_teacher_or_text_is_gone_costs_only_the_sentences(tmp_path: Path, reported: Reported) -> None:
    folder = write_run(tmp_path / "moved", end="FINISHED", teacher=str(tmp_path / "no-teacher"))
    shutil.copytree(reported.distilled / "student", folder / "student")
    assert "Left out: no corpus at 'corpus/heldout'" in report(tmp_path, folder)
    assert "Left out: --sentences 0." in report(tmp_path, folder, "--sentences", 0)


def test_the_forecast_stands_beside_that_of_the_random_start(reported: Reported, tmp_path: Path) -> None:
    going = write_run(tmp_path / "wiki", until=330)
    text = report(tmp_path, going)
    assert "No random start among these runs" in text
    text = report(tmp_path, going, write_run(tmp_path / "random", until=330, student_init="random"))
    table = [
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith(("| wiki | 330 of", "| random (random start) |"))
    ]
    assert len(table) == 2
    for row in table:
        assert row[2] == "86.5%"
        low, high = (float(part.rstrip("%")) for part in row[4].split(" to "))
        assert 86.0 < low < float(row[3].rstrip("%")) < high < 100.0
        assert abs(float(row[3].rstrip("%")) - 92.7) < 4.0  # what it came to


def test_what_is_no_run_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    for arguments, wanted in (
        ([tmp_path / "other"], "is no run folder"),
        ([tmp_path / "absent"], "is no run folder"),
        ([write_run(tmp_path / "a"), "--results", f"x={tmp_path / 'other'}"], "no TASK/result.json"),
    ):
        assert main([*map(str, arguments), "--output", str(tmp_path / "report")]) == 2
        error = capsys.readouterr().err
        assert wanted in error
        assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["runs/a", "--sentences", "-1"], ["runs/a", "--sequences", "0"], ["runs/a", "--speed", "no.json"]]
)
def test_flags_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2


def test_the_reports_own_folder_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As runs/* names it from the second time on."""
    folder = write_run(tmp_path / "a")
    report(tmp_path, folder)
    report(tmp_path, folder, tmp_path / "report")
    assert "the report's own folder" in capsys.readouterr().out


def test_help_answers_at_once() -> None:
    started = time.monotonic()
    command = [sys.executable, "-X", "importtime", "-m", "evaluation.report", "--help"]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert "--sentences" in result.stdout
    assert " torch\n" not in result.stderr
    assert time.monotonic() - started < 30
