"""The table of an exported student: its ratios, and what is refused."""

import pytest

from bench.export_speed import HEADER, STUDENT, TEACHER, ExportSpeedConfig, build, rows, texts_of
from evaluation.speed_figures import Figure


def figure(milliseconds: float, speed_up: float) -> Figure:
    return Figure(
        median=milliseconds,
        p10=milliseconds / 2,
        p90=milliseconds * 2,
        lowest=milliseconds - 1,
        highest=milliseconds + 1,
        speed_up=speed_up,
        pass_seconds=1.0,
    )


def test_ratios_are_to_the_teacher_and_to_the_student_in_pytorch() -> None:
    figures = {TEACHER: figure(80, 1.0), STUDENT: figure(40, 2.0), "onnx int8": figure(10, 8.0)}
    found = rows(figures, {TEACHER: 438_000_000, STUDENT: 268_000_000, "onnx int8": 67_300_000})
    assert all(len(row) == len(HEADER) for row in found)
    assert found[2] == ["onnx int8", "67.3", "10.00 (5.00 to 20.00)", "9.00 to 11.00", "8.00", "4.00"]
    assert [row[-2:] for row in found[:2]] == [["1.00", "0.50"], ["2.00", "1.00"]]


@pytest.mark.slow
def test_models_are_the_published_ones_with_two_outputs() -> None:
    models = build()
    millions = [sum(p.numel() for p in models[name].parameters()) / 1e6 for name in (TEACHER, STUDENT)]
    assert [round(number, 1) for number in millions] == [109.5, 67.0]
    assert {model.config.num_labels for model in models.values()} == {2}


@pytest.mark.slow
def test_texts_without_data_have_the_synthetic_lengths() -> None:
    assert set(texts_of(ExportSpeedConfig(sentences=0)).lengths) == set(range(16, 65))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="give the --tokenizer"):
        ExportSpeedConfig(data="sts-dev.csv")
    with pytest.raises(ValueError, match="--rounds 0"):
        ExportSpeedConfig(rounds=0)
