"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from evaluation.metrics import score
from evaluation.tasks import SQUAD, TASKS

MRPC, COLA, STSB, MNLI = (TASKS[name] for name in ("mrpc", "cola", "stsb", "mnli"))


def test_accuracy_and_f1_of_class_one() -> None:
    # TP 2, FP 1, FN 1, TN 4: F1 = 4/6, where F1 of class 0 would be 8/10.
    labels, predictions = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    report = score(MRPC, predictions, labels)
    assert report.scores == pytest.approx({"f1": 2 / 3, "accuracy": 6 / 8})
    assert report.remarks == {}
    assert list(report.scores) == list(MRPC.metrics)


def test_f1_without_class_one() -> None:
    zeros, ones = np.zeros(4, dtype=int), np.ones(4, dtype=int)
    assert score(MRPC, zeros, ones).scores == {"f1": 0.0, "accuracy": 0.0}  # nothing found of what there is
    assert score(MRPC, ones, zeros).scores == {"f1": 0.0, "accuracy": 0.0}
    report = score(MRPC, zeros, zeros)
    assert math.isnan(report.scores["f1"])
    assert report.scores["accuracy"] == 1.0
    assert "0/0" in report.remarks["f1"]


def test_matthews() -> None:
    # TP 3, TN 2, FP 1, FN 2: (3*2 - 1*2) / sqrt(4 * 5 * 3 * 4) = 4 / sqrt(240).
    labels, predictions = np.array([1, 1, 1, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 0, 1, 0, 0])
    report = score(COLA, predictions, labels)
    assert report.scores == pytest.approx({"matthews": 4 / math.sqrt(240)})
    assert report.remarks == {}
    assert score(COLA, 1 - labels, labels).scores["matthews"] == pytest.approx(-1.0)


def test_matthews_of_a_constant_is_0_and_says_so() -> None:
    report = score(COLA, np.ones(5, dtype=int), np.array([1, 0, 1, 1, 0]))
    assert report.scores == {"matthews": 0.0}
    assert report.remarks["matthews"] == "0 by convention: all 5 predictions are 1"


def test_correlations() -> None:
    # Ranks are the same but for one pair of ties; deviations from the means 2.5 and 3:
    # x (-1.5, -0.5, 0.5, 1.5), y (-2, -2, -1, 5): sum xy = 3 + 1 - 0.5 + 7.5 = 11, sum xx = 5, sum yy = 34.
    predictions, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 2.0, 8.0]) / 2
    report = score(STSB, predictions, labels)
    # Ranks of y (1.5, 1.5, 3, 4): deviations (-1, -1, 0.5, 1.5), sum xy = 1.5 + 0.5 + 0.25 + 2.25 = 4.5, sum yy = 4.5.
    assert report.scores == pytest.approx(
        {"pearson": 11 / math.sqrt(5 * 34), "spearman": 4.5 / math.sqrt(5 * 4.5)}, abs=1e-12
    )
    assert report.remarks == {}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("predictions", "labels", "reason"),
    [
        ([2.5, 2.5, 2.5], [1.0, 2.0, 3.0], "all 3 predictions are 2.5"),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], "all 3 labels are 4.0"),
        ([1.0, math.nan, math.inf], [1.0, 2.0, 3.0], "2 of 3 predictions are not finite"),
        ([1.0], [2.0], "all 1 predictions are 1.0"),
    ],
)
def test_an_undefined_correlation_is_nan_with_its_reason(
    predictions: list[float], labels: list[float], reason: str
) -> None:
    report = score(STSB, np.array(predictions), np.array(labels))
    for metric in ("pearson", "spearman"):
        assert math.isnan(report.scores[metric])
        assert report.remarks[metric] == f"undefined: {reason}"


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match=r"MNLI: prediction 3 is none of its 3 classes.*2 \(contradiction\)"):
        score(MNLI, np.array([0, 3]), np.array([0, 1]))
    with pytest.raises(ValueError, match="label -1 is none"):
        score(MNLI, np.array([0, 1]), np.array([0, -1]))
    with pytest.raises(ValueError, match=r"shape \(1,\) for labels of shape \(2,\)"):
        score(MNLI, np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="at least one"):
        score(MNLI, np.array([]), np.array([]))
    with pytest.raises(AssertionError, match="squad_score"):
        score(SQUAD, np.array([0]), np.array([0]))
