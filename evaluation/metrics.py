"""The metrics of GLUE and IMDb, through scikit-learn and SciPy, and what to say where one of them is undefined.

Shapes: N examples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from evaluation.tasks import Kind, Task


@dataclass(frozen=True)
class Report:
    """A task's metrics on one split."""

    scores: dict[str, float]
    """Fractions (0.913, not 91.3); nan where a metric is undefined."""
    remarks: dict[str, str]
    """Metric -> why it is nan, or what convention gave its value."""


def score(task: Task, predictions: np.ndarray, labels: np.ndarray) -> Report:
    """Every metric of the task.

    predictions and labels (N,): class numbers, or numbers of a regression.
    Errors: ValueError where they differ in number, there are none, or one is no class of the task.
    """
    assert task.kind is not Kind.SPAN, "evaluation.squad_score scores answers"
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1 or not len(labels):
        raise ValueError(
            f"{task.title}: predictions of shape {predictions.shape} for labels of shape {labels.shape}. "
            "Give one prediction for each example, and at least one"
        )
    if task.kind is Kind.CLASSIFICATION:
        _check_classes(task, "prediction", predictions)
        _check_classes(task, "label", labels)
    scores, remarks = {}, {}
    for metric in task.metrics:
        scores[metric], remark = METRICS[metric](predictions, labels)
        if remark:
            remarks[metric] = remark
    return Report(scores, remarks)


def _check_classes(task: Task, what: str, values: np.ndarray) -> None:
    outside = values[~np.isin(values, np.arange(len(task.labels)))]
    if len(outside):
        raise ValueError(
            f"{task.title}: {what} {outside[0]} is none of its {len(task.labels)} classes. "
            f"They are {', '.join(f'{number} ({name})' for number, name in enumerate(task.labels))}"
        )


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """Share of examples whose class is right."""
    return float(accuracy_score(labels, predictions)), ""


def f1(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """F1 of class 1 (binary, as GLUE's): 2 TP / (2 TP + FP + FN)."""
    if not predictions.any() and not labels.any():
        return math.nan, "F1 is 0/0: class 1 is neither predicted nor among the labels"
    return float(f1_score(labels, predictions, zero_division=0.0)), ""


def matthews(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """Matthews correlation of two classes. Where predictions or labels are all one class it is 0 by GLUE's convention."""
    remark = _constant(predictions, labels)
    return float(matthews_corrcoef(labels, predictions)), f"0 by convention: {remark}" if remark else ""


def pearson(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """Linear correlation, -1 to 1."""
    remark = _no_correlation(predictions, labels)
    return (math.nan, remark) if remark else (float(pearsonr(predictions, labels).statistic), "")


def spearman(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """Correlation of ranks, ties sharing the mean of theirs, -1 to 1."""
    remark = _no_correlation(predictions, labels)
    return (math.nan, remark) if remark else (float(spearmanr(predictions, labels).statistic), "")


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, str]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""By name: (predictions (N,), labels (N,)) -> (value, remark)."""


def _constant(predictions: np.ndarray, labels: np.ndarray) -> str:
    """Why nothing can correlate; empty where it can."""
    for what, values in (("predictions", predictions), ("labels", labels)):
        if (values == values[0]).all():
            return f"all {len(values)} {what} are {values[0]}"
    return ""


def _no_correlation(predictions: np.ndarray, labels: np.ndarray) -> str:
    for what, values in (("predictions", predictions), ("labels", labels)):
        finite = np.isfinite(values)
        if not finite.all():
            return f"undefined: {np.count_nonzero(~finite)} of {len(values)} {what} are not finite"
    constant = _constant(predictions, labels)
    return f"undefined: {constant}" if constant else ""
