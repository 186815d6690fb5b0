"""The command: from results in files, or from models, to Markdown and JSON."""

import json
import math
import random
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.results import FILE, Cell
from evaluation.table import command_line, main
from evaluation.table_config import TableConfig
from evaluation.tasks import TASKS
from tests.evaluation.finetuned import CELL, NINE, OTHER, nine, result, write
from tests.evaluation.tables import refusal, rows
from tests.launch import run

NAN = math.nan


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Results of GLUE's nine and IMDb, as flags."""
    write(tmp_path / "big", *nine("teacher"), result("imdb", 0.9346))
    write(tmp_path / "small", *nine("student"), result("imdb", 0.9282))
    return ["--teacher", str(tmp_path / "big"), "--student", f"half={tmp_path / 'small'}"]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def strict(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(), parse_constant=no_constant)


def test_from_files_to_a_section_and_its_figures(pair: list[str], tmp_path: Path) -> None:
    results, figures = tmp_path / "RESULTS.md", tmp_path / "figures.json"
    results.write_text("# Measured\n")
    flags = [*pair, "--paper", "--append", results, "--json", figures]
    process = run([sys.executable, "-m", "evaluation.table", *flags])
    assert process.returncode == 0, process.stdout
    assert results.read_text() == f"# Measured\n\n{process.stdout}"
    assert f"    python -m evaluation.table --teacher {tmp_path / 'big'} --student half=" in process.stdout
    assert f"big: runs/a/student, 66.4 M parameters, results in {tmp_path / 'big'}" in process.stdout
    header, _, *body = rows(process.stdout)
    titles = ["CoLA", "MNLI m/mm", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI", "GLUE score", "IMDb"]
    assert header == ["model", *titles, "SQuAD 1.1 EM/F1"]
    big = "56.3 | 84.7 / 84.7 | 88.6 | 91.8 | 89.6 | 69.3 | 92.7 | 89.0 | 53.5 | 79.5 | 93.5 | no result"
    half = "51.3 | 82.2 / 82.2 | 87.5 | 89.2 | 88.5 | 59.9 | 91.3 | 86.9 | 56.3 | 77.0 | 92.8 | no result"
    kept = "91.1 | 97.0 / 97.0 | 98.8 | 97.2 | 98.8 | 86.4 | 98.5 | 97.6 | 105.2 | 96.9 | 99.3 | -"
    assert [" | ".join(row) for row in body[:3]] == [f"big | {big}", f"half | {half}", f"retention of half, % | {kept}"]
    paper = [row for row in body if "Sanh et al. 2019" in row[0]]
    assert [row[0].split(",")[0] for row in paper] == [
        "BERT-base",
        "DistilBERT",
        "retention of DistilBERT",
        "DistilBERT (D)",
        "retention of DistilBERT (D)",
    ]
    assert paper[1][-1] == "77.7 / 85.8"
    assert "their figures, not measured here" in process.stdout
    assert "not GLUE's score" not in process.stdout
    content = strict(figures)
    assert content["macro"]["is_glue_score"]
    assert content["macro"]["retention"]["half"]["value"] == pytest.approx(6931 / 7155)
    assert content["scores"]["half"]["rte"]["value"] == 0.599
    assert content["results"]["half"]["rte"]["headlines"] == [0.599]
    assert content["published"]["source"] == "Sanh et al. 2019"


def test_seeds_and_choice_are_never_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = {CELL: (0.5, 0.55, 0.52), OTHER: (0.6, 0.9, 0.7)}
    flags = ["--teacher", str(write(tmp_path / "a", result("rte", cells=best)))]
    flags += ["--student", str(write(tmp_path / "b", result("rte", 0.6)))]
    assert command_line(flags) == 0
    printed = capsys.readouterr().out
    details = [row for row in rows(printed) if row[0] == "RTE"]
    assert details == [
        ["RTE", "a", "accuracy", "70.0", "60.0 to 90.0", "3", "6 of 2 cells", "32, 2e-05, 3"],
        ["RTE", "b", "accuracy", "60.0", "one seed", "1", "1 of 1 cell", "32, 5e-05, 3"],
    ]
    assert "median over 1 to 3 seeds" in printed
    assert "the best of 1 to 2 cells, so it is taken from 1 to 6 runs. The cell was chosen for each task and" in printed
    assert "**Where there is one seed, nothing is known of the spread.**" in printed
    assert command_line([*flags[:2], "--student", f"c={tmp_path / 'a'}"]) == 0
    assert "one seed" not in capsys.readouterr().out


def test_what_is_missing_undefined_or_unlike_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = [result("cola", -0.05), result("rte", 0.7), result("sst2", 0.9), result("stsb", 0.9)]
    student = [result("cola", 0.1), result("rte", 0.6, dev=(50, 200)), result("sst2", 0.8, train=(8000, 67349))]
    flags = ["--teacher", str(write(tmp_path / "big", *teacher)), "--student", str(write(tmp_path / "a|b", *student))]
    figures = tmp_path / "figures.json"
    assert command_line([*flags, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    header, _, big, small, kept = [
        re.split(r" (?<!\\)\| ", line[2:-2]) for line in printed.splitlines() if line[:1] == "|"
    ][:5]
    assert "mean of 3 of GLUE's 9 (CoLA, RTE, SST-2)" in header
    assert "**The mean is not GLUE's score**" in printed
    assert "Missing: MNLI, MRPC, QNLI, QQP, STS-B (a|b), WNLI. " in printed
    assert small[0] == "a\\|b"
    assert {len(row) for row in (header, big, small, kept)} == {13}

    def note(row: list[str], title: str) -> list[str]:
        cell = row[header.index(title)]
        return [
            line for number in re.findall(r"\[\d+\]", cell) for line in printed.splitlines() if f"- {number}" in line
        ]

    assert big[header.index("CoLA")] == "-5.0"
    assert kept[header.index("CoLA")].startswith("undefined")
    assert "the teacher's score is -5" in note(kept, "CoLA")[0]
    assert "evaluated on 50 of 200" in note(small, "RTE")[0]
    assert "evaluated on 50 of 200 examples (validation), the teacher on all 200" in note(kept, "RTE")[0]
    assert kept[header.index("SST-2")].startswith("88.9 [")
    assert "SST-2: trained on 8,000 of 67,349" in note(small, "SST-2")[0]
    assert "The student differs in more than the model: trained on 8,000 of 67,349" in note(kept, "SST-2")[0]
    assert kept[header.index("WNLI")] == "-"
    assert (small[header.index("STS-B")], kept[header.index("STS-B")]) == ("no result", "-")
    assert kept[header.index("mean of 3 of GLUE's 9 (CoLA, RTE, SST-2)")].startswith("undefined [")
    content = strict(figures)
    assert content["retention"]["a|b"]["cola"]["value"] is None
    assert content["retention"]["a|b"]["cola"]["why"] == "the teacher's score is -5"


def by_hand(folder: Path, task: str) -> float:
    """What stands for a task, from its file alone."""
    raw = json.loads((folder / task / FILE).read_text())
    cells: dict[tuple, list[dict]] = {}
    for one in raw["runs"]:
        cells.setdefault(tuple(one["cell"].values()), []).append(one["scores"])
    headline = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "spearman", "squad": "f1"}.get(task, "accuracy")
    of_cell = {
        cell: statistics.median(sum(split[headline] for split in seed.values()) / len(seed) for seed in seeds)
        for cell, seeds in cells.items()
    }
    seeds = cells[max(of_cell, key=lambda cell: of_cell[cell])]
    figures = [
        statistics.median(seed[split][metric] for seed in seeds)
        for split, metrics in seeds[0].items()
        for metric in metrics
        if metric == "f1" or task != "squad"
    ]
    return sum(figures) / len(figures)


@pytest.mark.parametrize("number_of_seeds", [1, 2, 5])
def test_random_results_against_the_files_read_by_hand(tmp_path: Path, number_of_seeds: int) -> None:
    chance = random.Random(number_of_seeds)
    cells = [Cell(batch_size=size, learning_rate=rate, epochs=3) for size in (16, 32) for rate in (2e-5, 5e-5)]
    for model in ("big", "small"):
        for task in TASKS.values():
            grid = {
                cell: [
                    {split: {metric: chance.uniform(0.1, 1) for metric in task.metrics} for split in task.dev_splits}
                    for _ in range(number_of_seeds)
                ]
                for cell in cells
            }
            write(tmp_path / model, result(task.name, cells=grid))
    figures = tmp_path / "figures.json"
    config = TableConfig(teacher=str(tmp_path / "big"), student=(str(tmp_path / "small"),), json=str(figures))
    assert main(config, "") == 0
    content = strict(figures)
    expected = {model: {task: by_hand(tmp_path / model, task) for task in TASKS} for model in ("big", "small")}
    for task in TASKS:
        assert content["scores"]["small"][task]["value"] == pytest.approx(expected["small"][task])
        kept = expected["small"][task] / expected["big"][task]
        assert content["retention"]["small"][task]["value"] == pytest.approx(kept)
    means = {model: sum(expected[model][task] for task in NINE) / 9 for model in expected}
    assert content["macro"]["scores"] == pytest.approx(means)
    assert content["macro"]["retention"]["small"]["value"] == pytest.approx(means["small"] / means["big"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: json.dumps(raw)[:-9], "is no result of finetune.py"),
        (lambda raw: json.dumps(raw | {"version": 2}), "another version"),
        (lambda raw: json.dumps(raw | {"runs": []}), "is no result"),
        (lambda raw: json.dumps([raw]), "is no result"),
        (lambda raw: json.dumps(raw).replace("0.599", "59.9"), "accuracy = 59.9 is no fraction"),
        (lambda raw: json.dumps(raw | {"data": {"train": raw["data"]["train"]}}), "what was read of validation"),
        (lambda raw: json.dumps(raw | {"task": "wnli"}), "is a result of wnli"),
        (lambda raw: b"\xff", "is no result"),
    ],
)
def test_one_bad_file_is_named(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], change: Any, reason: str
) -> None:
    path = tmp_path / "small/rte" / FILE
    content = change(json.loads(path.read_text()))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refusal(capfd, *pair)
    assert str(path) in error
    assert reason in error


def leaves(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where a document has a value, containers among them."""
    if path:
        yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in parts:
        yield from leaves(part, (*path, key))


def test_damage_anywhere_in_a_file_is_one_line_or_none(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.table_report.hardware", lambda: "a machine")
    path = tmp_path / "small/rte" / FILE
    whole = path.read_text()
    for place in leaves(json.loads(whole)):
        for junk in (None, "x", -1, 0.5, [], {}, [None]):
            raw = part = json.loads(whole)
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = junk
            path.write_text(json.dumps(raw))
            code = command_line([*pair, "--tasks", "rte"])
            printed = capfd.readouterr()
            assert code in (0, 2), place
            assert printed.err.count("\n") == (1 if code else 0), (place, junk, printed.err)
            assert bool(printed.out) != bool(code)


def test_folders_and_names_that_do_not_fit_are_refused(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    big, small, empty = tmp_path / "big", tmp_path / "small", tmp_path / "empty"
    empty.mkdir()
    assert "there is no folder 'bert-base-uncased'" in refusal(
        capfd, "--teacher", big, "--student", "bert-base-uncased"
    )
    assert "no config.json" in refusal(capfd, "--teacher", empty, "--student", small)
    assert "there is a 'big' already" in refusal(capfd, "--teacher", big, "--student", f"big={small}")
    assert "'..' is no name" in refusal(capfd, "--teacher", f"..={big}", "--student", small)
    assert "'a/b' is no name" in refusal(capfd, "--teacher", big, "--student", f"a/b={small}")
    assert "It has cola, " in refusal(capfd, *pair, "--tasks", "squad")
    assert "--student is given twice" in refusal(capfd, *pair, f"--student={small}")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"student": ()}, "--student"),
        ({"tasks": ()}, "--tasks"),
        ({"tasks": ("sst-2",)}, "there is no task 'sst-2'"),
        ({"finetune": "--seeds '3", "data": "."}, "No closing quotation"),
        ({"finetune": "--seeds 3"}, "nothing is fine-tuned without --data"),
        ({"json": "/no/such/folder/x.json"}, "there is no folder"),
    ],
)
def test_flags_that_make_no_table_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        TableConfig(**{"teacher": "a", "student": ("b",), **options})


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    process = run([sys.executable, "-X", "importtime", "-m", "evaluation.table", "--help"])
    assert process.returncode == 0
    imported = {
        line.rpartition("|")[2].strip() for line in process.stdout.splitlines() if line.startswith("import time")
    }
    assert not imported & {"torch", "numpy", "sklearn", "scipy", "datasets", "transformers", "tokenizers"}
    assert "evaluation.tasks" in imported
