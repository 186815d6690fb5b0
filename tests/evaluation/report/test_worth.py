"""Retention on tasks, size and speed: from the files of the commands that measure them."""

import json
from pathlib import Path

import pytest

from evaluation.report.document import Charts, Note, Section, Table
from evaluation.report.runs import Run, read_run
from evaluation.report.worth import read_speed, read_tasks, retention_section, size_section, weigh_folders
from evaluation.results import Cell, SplitUsed, TaskResult, TaskRun, write_result
from evaluation.tasks import TASKS
from tests.conftest import Toy
from tests.evaluation.report.run_folders import write_run


def write_scores(folder: Path, *, examples: int = 100, **headlines: list[float]) -> Path:
    """Results of one cell; a task's seeds have every metric of every split at these values."""
    for name, values in headlines.items():
        task = TASKS[name]
        cell = Cell(batch_size=32, learning_rate=3e-5, epochs=3)
        runs = tuple(
            TaskRun(cell=cell, seed=s, scores={split: dict.fromkeys(task.metrics, v) for split in task.dev_splits})
            for s, v in enumerate(values)
        )
        data = {split: SplitUsed(files=("f",), examples=examples, of=100) for split in task.splits}
        result = TaskResult(task=name, model="m", parameters=1, settings={}, data=data, runs=runs)
        (folder / name).mkdir(parents=True)
        write_result(result, folder / name)
    return folder


def a_run(folder: Path, toy: Toy | None = None) -> Run:
    return read_run(write_run(folder, **({"teacher": str(toy.teacher)} if toy else {})), folder.name)


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def notes(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Note))


def test_retention_of_a_task_is_the_share_of_the_teachers_median(tmp_path: Path) -> None:
    teacher = write_scores(tmp_path / "t", rte=[0.5, 0.8, 0.7], sst2=[0.9], cola=[0.0])
    student = write_scores(tmp_path / "s", rte=[0.63, 0.1, 0.9], sst2=[0.81], cola=[0.1], wnli=[0.5])
    scores = read_tasks([f"half={student}", f"teacher={teacher}"])
    assert scores is not None
    assert scores.models == ("teacher", "half")
    section = retention_section([], scores, {})
    (table,) = tables(section)
    assert table.header == ["task", "teacher", "half", "retention"]
    assert table.rows == [
        ["CoLA", "0.0", "10.0", "undefined"],
        ["RTE", "70.0", "63.0", "90.0%"],
        ["SST-2", "90.0", "81.0", "90.0%"],
        ["WNLI", "no result", "50.0", ""],
        ["mean of 3 of GLUE's 9 (CoLA, RTE, SST-2)", "53.3", "51.3", "96.2%"],
    ]
    (charts,) = (block for block in section.blocks if isinstance(block, Charts))
    assert charts.charts[0].svg.count(">90.0%<") == 2
    assert "CoLA" not in charts.charts[0].svg
    assert "no distillation has held-out figures" in notes(section)


def test_glue_is_told_where_all_nine_are_there_and_subsets_are_marked(tmp_path: Path) -> None:
    nine = [name for name in TASKS if name not in ("imdb", "squad")]
    teacher = write_scores(tmp_path / "t", examples=50, **{name: [0.8] for name in nine})
    student = write_scores(tmp_path / "s", examples=50, **{name: [0.6] for name in nine})
    section = retention_section([], read_tasks([f"teacher={teacher}", f"s={student}"]), {})
    assert tables(section)[0].rows[-1] == ["GLUE score", "80.0", "60.0", "75.0%"]
    assert tables(section)[0].rows[0][0] == "CoLA*"
    assert "part of the data" in notes(section)


def test_held_out_retention_is_told_where_there_are_no_tasks(tmp_path: Path) -> None:
    section = retention_section([a_run(tmp_path / "wiki")], None, {"wiki": 0})
    assert tables(section)[0].rows == [["wiki", "17.9%", "19.3%", "92.7%"]]
    assert "Tasks are left out" in notes(section)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no TASK/result\.json"):
        read_tasks([f"teacher={tmp_path}"])


def speed_file(path: Path) -> Path:
    way = {"device": "cpu", "precision": "fp32", "threads": 2}
    models = {
        name: {"source": name, "parameters": p, "weights_bytes": 4 * p} for name, p in (("wiki", 66), ("teacher", 110))
    }
    settings = [
        {**way, "batch_size": 1, "unit": "ms", "models": {"teacher": {"median": 20.0}, "wiki": {"median": 10.0}}},
        {**way, "batch_size": 32, "unit": "texts/s", "models": {"teacher": {"median": 50.0}, "wiki": {"median": 90.0}}},
    ]
    path.write_text(json.dumps({"models": models, "settings": settings}))
    return path


def test_speed_is_compared_with_the_teacher(tmp_path: Path) -> None:
    weights = read_speed(str(speed_file(tmp_path / "speed.json")))
    section = size_section([a_run(tmp_path / "wiki")], None, weights, True, {})
    (table,) = tables(section)
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.header == ["", "teacher", "wiki"]
    assert rows["fp32, 2 threads"] == ["20 ms (1.00x)", "10 ms (2.00x)"]
    assert rows["fp32, 2 threads, batches of 32"] == ["50 texts/s (1.00x)", "90 texts/s (1.80x)"]
    (charts,) = (block for block in section.blocks if isinstance(block, Charts))
    assert [share for share in ("60.0%", "50.0%", "92.7%") if f">{share}<" in charts.charts[0].svg] == [
        "60.0%",
        "50.0%",
        "92.7%",
    ]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"models": {"a": {}}, "settings": []}', '{"models": 3}'])
def test_a_file_that_is_not_of_the_speed_command_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "speed.json").write_text(content)
    with pytest.raises(ValueError, match=r"is no file of evaluation.speed --json"):
        read_speed(str(tmp_path / "speed.json"))


def test_sizes_are_those_of_the_folders_where_speed_was_not_measured(toy: Toy, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    from model.hub import load_model, save_model
    from model.student import make_student

    run = a_run(tmp_path / "wiki", toy)
    assert weigh_folders([run]) == []
    model = make_student(load_model(toy.teacher), dropout=0.0)
    save_model(model, run.folder / "student", "distilbert", model.state_dict())
    teacher, student = weigh_folders([run])
    published = AutoModelForMaskedLM.from_pretrained(run.folder / "student")
    assert student.parameters == sum(p.numel() for p in published.parameters())
    assert student.megabytes == (run.folder / "student" / "model.safetensors").stat().st_size / 1e6
    assert (teacher.name, student.name) == ("teacher", "wiki")
    assert "Speed is left out" in notes(size_section([run], [], [teacher, student], False, {}))
