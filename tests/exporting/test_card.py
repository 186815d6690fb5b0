"""The model card of what has a history: a run's student, and what was fine-tuned from it."""

import json
import math
from pathlib import Path

import pytest
import yaml

from evaluation.results import read_result, write_result
from exporting.card import write_card
from exporting.command import refusal
from exporting.golden import Recorded
from exporting.hugging_face import Equality
from exporting.report import Report, Row
from exporting.source import load_source
from exporting.variant import Figures, Variant
from finetuning.starts import digest_of
from tests.evaluation.finetuned import result, write
from tests.exporting.small import write_student, write_task

FLAGS = {
    "objective": "distil",
    "student_init": "teacher",
    "student_layers": "",
    "teacher": "teachers/minilm",
    "eval_data": "corpus/heldout",
    "max_updates": 0,
    "epochs": 3.0,
    "warmup_share": 0.05,
    "data": ["corpus/wiki", "corpus/books"],
    "max_length": 64,
    "temperature": 2.0,
    "weight_distillation": 5.0,
    "weight_mlm": 2.0,
    "weight_cosine": 1.0,
}
DS = {"train_batch_size": 64, "optimizer": {"type": "AdamW", "params": {"lr": 0.001}}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, ended before its time."""
    folder = tmp_path_factory.mktemp("runs") / "wiki"
    write_student(folder / "student")
    (folder / "config.json").write_text(json.dumps({"flags": FLAGS, "ds_config": DS}))
    lines = [
        {"update": 0, "eval_teacher_mlm_loss": 3.0, "eval_teacher_mlm_accuracy": 0.4},
        {"update": 40, "loss": 5.0, "epoch": 1.2, "sequences": 2560, "tokens": 320_000},
        {"update": 40, "eval_mlm_loss": 3.5, "eval_mlm_accuracy": 0.35, "eval_agreement": None},
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    starts = [{"attempt": 1, "start_update": 0}, {"attempt": 1, "end": "PREEMPTED", "exit_code": 75, "update": 20}]
    starts += [{"attempt": 2, "start_update": 20}, {"attempt": 2, "end": "FINISHED", "exit_code": 0, "update": 40}]
    (folder / "attempts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in starts))
    return folder


def variant(name: str, precision: str) -> Variant:
    return Variant(
        name=name,
        format="onnx",
        precision=precision,
        file=f"onnx/{name}.onnx",
        runtime="r",
        load=lambda *_: lambda _: (),
    )


def card(given: Path, folder: Path) -> tuple[dict, str]:
    source = load_source(str(given))
    recorded = Recorded(max_difference=0.2, same_answers=49)
    rows = [
        Row(
            variant=variant(name, precision),
            bytes=size,
            sha256="0",
            recorded=recorded,
            figures=Figures(metric="accuracy", score=score, drop=100 * (0.8 - score), examples=200, latency_ms=2.5),
            refused=why,
        )
        for name, precision, size, score, why in (
            ("fp32", "fp32", 4_000_000, 0.8, ""),
            ("int8", "int8", 1_100_000, 0.795, ""),
            (
                "int8_static",
                "int8_static",
                1_000_000,
                0.7,
                "it loses 10.00 points of accuracy, --max_drop 1 is allowed",
            ),
        )
    ]
    report = Report(
        source=source,
        rows=rows,
        equality=Equality(folder=0.0, plain=1e-6, inputs=8, tokens=200),
        golden_inputs=50,
        golden_from="SST-2, validation",
        calibrated_on="",
        measured_on="glue",
        max_drop=1.0,
        teacher="teachers/sst2",
        teacher_figures=Figures(latency_ms=10.0, speedup=1.0),
        hardware="a machine",
        versions={"torch": "2"},
    )
    folder.mkdir()
    write_card(report, folder)
    assert report.as_json()["refused"][0]["file"] == "onnx/int8_static.onnx"
    assert report.as_json()["teacher"]["model"] == "teachers/sst2"
    assert "Not kept:\n\n- onnx/int8_static.onnx: it loses 10.00 points" in report.as_markdown()
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_of_a_run(run: Path, tmp_path: Path) -> None:
    front, body = card(run, tmp_path / "card")
    assert front["pipeline_tag"] == "fill-mask"
    assert "# wiki\n" in body
    assert "Distilled from teachers/minilm: 5.0 x distillation, 2.0 x mlm, 1.0 x cosine, temperature 2.0" in body
    assert "corpus/wiki, corpus/books" in body
    assert "40 updates of 64 sequences, 0.3 M tokens, AdamW, learning rate 0.001" in body
    assert "distilled on texts of up to 64 tokens" in body
    assert "finished; 2 starts, 0 incidents" in body
    assert "update 40: mlm_loss 3.5000, mlm_accuracy 0.3500." in body
    assert "teacher there: mlm_loss 3.0000, mlm_accuracy 0.4000" in body
    assert "| int8 | onnx/int8.onnx | 1.1 | 49/50 | 0.2 | 79.50 | 0.50 | 2.5 |" in body
    assert "| teacher teachers/sst2 |" in body
    assert "onnx/int8_static.onnx was not kept: it loses 10.00 points" in body


def test_of_a_fine_tuning_of_that_run(run: Path, tmp_path: Path) -> None:
    """It is known by its weights, not by its name: of another student under the same name nothing is said."""
    folder = write_task(tmp_path / "finetuned", "sst2")
    settings = {"max_length": 64, "weights": digest_of(run / "student")}
    made = result(
        "sst2", 0.8, 0.9, 0.7, model=str(run / "student"), saved="model", settings=settings, train=(500, 1000)
    )
    write(tmp_path / "finetuned", made)
    front, body = card(folder, tmp_path / "card")
    (entry,) = front["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == 0.8
    assert entry["results"][0]["dataset"]["type"] == "nyu-mll/glue"
    assert "Distilled from teachers/minilm" in body
    assert "- Fine-tuned from wiki/student on SST-2" in body
    assert str(run.parent) not in body
    assert "SST-2, validation: accuracy 80.00 (median of 3 seeds)" in body
    assert "train: 500 of 1,000 examples" in body
    assert "part of the examples only" in body
    changed = read_result(folder)
    write_result(result("sst2", 0.8, model=changed.model, saved="model", settings=settings | {"weights": "0"}), folder)
    _, body = card(folder / "model", tmp_path / "other")
    assert "Distilled from" not in body
    assert "No record of its pre-training or distillation" in body


@pytest.mark.parametrize(
    ("precision", "difference", "drop", "score", "why"),
    [
        ("int8", 0.5, 1.0, 0.8, ""),
        ("int8", 0.5, 1.01, 0.8, "loses 1.01 points of f1"),
        ("int8", 0.5, -2.0, 0.8, ""),
        ("int8", math.inf, 0.0, 0.8, "not finite"),
        ("int8", 0.5, math.nan, math.nan, "f1 is undefined"),
        ("fp32", 2e-4, 0.0, 0.8, "it is fp32, but its logits differ by 0.0002"),
        ("fp32", 5e-5, 0.0, 0.8, ""),
    ],
)
def test_what_is_refused(precision: str, difference: float, drop: float, score: float, why: str) -> None:
    found = refusal(
        variant("x", precision),
        Recorded(max_difference=difference, same_answers=50),
        Figures(metric="f1", score=score, drop=drop),
        max_drop=1.0,
    )
    assert why in found
    assert bool(found) == bool(why)
