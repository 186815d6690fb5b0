"""The report of a run that train.py has really made."""

from pathlib import Path

import pytest

from evaluation.report.__main__ import main
from evaluation.report.runs import read_run
from tests.conftest import Toy
from tests.launch import ds_config, metrics, run, torchrun_command


@pytest.mark.slow
def test_report_of_a_run_has_what_the_run_has_recorded(toy: Toy, tmp_path: Path) -> None:
    flags = {
        "ds_config": ds_config(tmp_path / "ds.json"),
        "teacher": toy.teacher,
        "data": toy.train,
        "eval_data": toy.heldout,
        "max_length": 40,
        "max_updates": 30,
        "eval_every": 6,
        "log_every": 4,
        "checkpoint_every": 30,
        "eval_sequences": 24,
        "output": tmp_path / "runs" / "a",
    }
    named = [part for flag, value in flags.items() for part in (f"--{flag}", value)]
    result = run(torchrun_command(1, "train.py", *named, "--no_check_teacher"))
    assert result.returncode == 0, result.stdout
    arguments = [str(tmp_path / "runs" / "a"), "--output", str(tmp_path / "report"), "--sequences", "24"]
    assert main(arguments) == 0
    final = (tmp_path / "report" / "report.md").read_text().replace("\\", "")
    lines = metrics(tmp_path / "runs" / "a")
    teacher = next(line for line in lines if "eval_teacher_mlm_accuracy" in line)
    last = [line for line in lines if "eval_mlm_accuracy" in line][-1]
    retention = last["eval_mlm_accuracy"] / teacher["eval_teacher_mlm_accuracy"]
    assert f"it retains {retention:.1%} of the teacher's accuracy" in final
    assert "30 of 30 updates (100%)" in final
    assert "FINISHED (0)" in final
    assert "1. Sequence" in final
    a_run = read_run(tmp_path / "runs" / "a", "a")
    logged = {line["update"]: line["tokens"] for line in lines if "tokens" in line}
    assert [e.tokens for e in a_run.evaluations if e.update in logged] == [
        logged[e.update] for e in a_run.evaluations if e.update in logged
    ]
