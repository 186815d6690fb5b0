"""The table of models: their missing tasks are fine-tuned first, and results that do not fit a model are seen."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import table_results
from evaluation.results import FILE, read_results
from evaluation.table import command_line
from evaluation.table_config import TableConfig
from evaluation.table_results import finetune_command, has_data, sides_of
from evaluation.tasks import TASKS
from tests.evaluation.finetuned import NINE, result, write
from tests.evaluation.tables import refusal, rows
from tests.launch import ROOT

FOLDER = Path(os.environ.get("DISTILLERY_DATA", ROOT / ".." / "shared" / "data"))


FINETUNE = """
import sys
from argparse import ArgumentParser
from pathlib import Path
from tests.evaluation.finetuned import result, write
parser = ArgumentParser()
for flag in ("model", "task", "data", "output"):
    parser.add_argument(f"--{flag}", required=True)
parser.add_argument("--seeds", type=int, default=1)
flags = parser.parse_args()
print("not for the table")
if "broken" in flags.model:
    sys.exit(3)
if "lazy" not in flags.model:
    write(Path(flags.output), result(flags.task, *[0.5] * flags.seeds, model=flags.model))
"""
"""Takes the flags of finetune.py and writes what it would."""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a model folder `student` and RTE's data are, with a quick finetune.py."""
    script = tmp_path / "finetune.py"
    script.write_text(FINETUNE)
    monkeypatch.setattr(table_results, "_SCRIPT", script)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    has_data.cache_clear()
    for name in ("student", "broken", "lazy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    folder = tmp_path / "data/glue/RTE"
    folder.mkdir(parents=True)
    for file in ("train.tsv", "dev.tsv"):
        (folder / file).write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    write(tmp_path / "results", result("rte", 0.8, 0.8), result("cola", 0.3))
    return tmp_path


def test_a_models_missing_tasks_are_fine_tuned_once(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--teacher", "results", "--student", "student", "--tasks", "rte", "cola", "sst2", "--data", "data"]
    assert command_line([*flags, "--finetune=--seeds 2"]) == 0
    printed = capfd.readouterr()
    command = "finetune.py --model student --task rte --data data --output runs/table/student --seeds 2"
    assert command in printed.err
    assert "not for the table" in printed.err
    assert printed.out.startswith("## ")
    header, _, teacher, student, kept = rows(printed.out)[:5]
    assert header == ["model", "CoLA", "RTE", "SST-2", "mean of 1 of GLUE's 9 (RTE)"]
    assert teacher == ["results", "30.0", "80.0", "no data", "80.0"]
    assert student == ["student", "no data", "50.0", "no data", "50.0"]
    assert kept == ["retention of student, %", "-", "62.5", "-", "62.5"]
    assert "There is no data of CoLA, SST-2." in printed.out
    assert "student: student, 66.4 M parameters, results in runs/table/student" in printed.out
    assert [len(one.runs) for one in read_results(models / "runs/table/student")] == [2]
    shutil.rmtree(models / "data")
    (models / "data").mkdir()
    assert command_line([*flags, "--finetune=--seeds 5"]) == 0
    assert "finetune.py" not in capfd.readouterr().err


def test_the_command_that_fine_tunes(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    teacher, _ = sides_of(TableConfig(teacher=f"a={tmp_path}", student=(f"b={tmp_path}",), output="runs/x"))
    command = finetune_command(teacher, "rte", "data", ["--epochs", "1"])
    assert command[:2] == [sys.executable, os.path.relpath(ROOT / "finetune.py")]
    wanted = f"--model {tmp_path} --task rte --data data --output runs/x/a --epochs 1"
    assert command[2:] == wanted.split()


def test_models_that_cannot_be_fine_tuned_are_refused(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair = ["--teacher", "results", "--student", "student"]
    assert "Give --data to fine-tune student now" in refusal(capfd, *pair)
    without = ["--data", "data", "--tasks", "squad", "imdb"]
    assert "data no data of them" in refusal(capfd, "--teacher", "student", "--student", "results", *without)
    assert "--data nowhere: there is no such folder" in refusal(capfd, *pair, "--data", "nowhere")
    data = ["--data", "data", "--tasks", "rte"]
    error = refusal(capfd, "--teacher", "results", "--student", "broken", *data)
    assert "fine-tuning failed with exit code 3: " in error
    assert "finetune.py --model broken --task rte" in error
    assert "left no runs/table/lazy/rte/result.json" in refusal(
        capfd, "--teacher", "results", "--student", "lazy", *data
    )
    (models / "data/glue/RTE/dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n")
    has_data.cache_clear()
    assert "dev.tsv, line 2, column 'label'" in refusal(capfd, *pair, *data)


def test_results_of_another_model_or_of_other_weights(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(models / "runs/table/student", result("rte", 0.5, model="student"), result("cola", 0.1, model="./student"))
    flags = ["--teacher", "results", "--student", "student"]
    assert command_line(flags) == 0
    printed = capfd.readouterr().out
    assert "older than the weights" not in printed
    assert "- student: its results are not of one model: ./student (CoLA); student (RTE)." in printed
    (models / "student/model.safetensors").touch()
    os.utime(models / "runs/table/student/rte" / FILE, (0, 0))
    assert command_line(flags) == 0
    printed = capfd.readouterr().out
    assert "- student: the result of RTE is older than the weights in student." in printed
    some = [
        result(t, 0.5, model="student, random start", settings={"weights": w}) for t, w in (("rte", 1), ("cola", 2))
    ]
    write(models / "runs/table/student", *some)
    assert command_line(flags) == 0
    printed = capfd.readouterr().out
    assert "student, random start, weights 2 (CoLA); student, random start, weights 1 (RTE)" in printed
    assert "student: student, random start, 66.4 M parameters, results in runs/table/student" in printed
    write(models / "runs/table/student", replace(result("rte", 0.5), model="broken"))
    assert "rte/result.json is of broken, not of student" in refusal(capfd, *flags)


def test_a_task_has_data_where_all_of_its_splits_are(models: Path) -> None:
    data = models / "data"
    assert has_data(TASKS["rte"], str(data), is_only_task=False)
    assert has_data(TASKS["rte"], str(data / "glue"), is_only_task=False)
    assert has_data(TASKS["rte"], str(data / "glue/RTE"), is_only_task=True)
    assert not has_data(TASKS["rte"], str(data / "glue/RTE"), is_only_task=False)
    assert not has_data(TASKS["squad"], str(data), is_only_task=False)
    assert has_data(TASKS["squad"], "hf:", is_only_task=False)
    (data / "glue/QNLI").mkdir()
    (data / "glue/QNLI/dev.tsv").write_text("index\tquestion\tsentence\tlabel\n0\ta\tb\tentailment\n")
    assert not has_data(TASKS["qnli"], str(data), is_only_task=False)


def test_real_data_has_what_is_there() -> None:
    if not (FOLDER / "glue").is_dir():
        pytest.skip(f"no GLUE at {FOLDER}; set DISTILLERY_DATA to the folder with real data")
    found = [task for task in NINE if has_data(TASKS[task], str(FOLDER), is_only_task=False)]
    assert found == ["cola", "rte", "sst2", "stsb", "wnli"]
