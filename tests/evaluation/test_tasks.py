"""The table of tasks and GLUE's weighting, against published figures."""

import math

import pytest

from evaluation.metrics import METRICS
from evaluation.tasks import GLUE, IMDB, SQUAD, TASKS, Kind, glue_score, headline_score, task_named, task_score

# Sanh et al. 2019 (DistilBERT), table 1: CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2, STS-B, WNLI, and their score.
PUBLISHED = {
    "ELMo": ((44.1, 68.6, 76.6, 71.1, 86.2, 53.4, 91.5, 70.4, 56.3), 68.7),
    "DistilBERT": ((51.3, 82.2, 87.5, 89.2, 88.5, 59.9, 91.3, 86.9, 56.3), 77.0),
}


def all_metrics(values: tuple[float, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """Every metric of a task is its one published figure."""
    return {
        task.name: {split: dict.fromkeys(task.metrics, value) for split in task.dev_splits}
        for task, value in zip(GLUE, values, strict=True)
    }


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_macro_score_is_the_published_one(model: str) -> None:
    values, published = PUBLISHED[model]
    assert round(glue_score(all_metrics(values)), 1) == published


def test_two_metrics_or_two_dev_sets_count_as_one_task() -> None:
    assert task_score(task_named("mrpc"), {"validation": {"f1": 0.9, "accuracy": 0.8}}) == pytest.approx(0.85)
    mnli = {"validation_matched": {"accuracy": 0.82}, "validation_mismatched": {"accuracy": 0.84}}
    assert task_score(task_named("mnli"), mnli) == pytest.approx(0.83)
    scores = all_metrics((0.0,) * 9) | {"mnli": mnli}
    assert glue_score(scores) == pytest.approx(0.83 / 9)
    assert headline_score(task_named("mnli"), mnli) == pytest.approx(0.83)
    assert headline_score(task_named("stsb"), {"validation": {"pearson": 0.9, "spearman": 0.8}}) == 0.8


def test_nothing_is_left_out_of_a_mean() -> None:
    scores = all_metrics((0.5,) * 9)
    with pytest.raises(ValueError, match="nine tasks; WNLI missing"):
        glue_score({name: value for name, value in scores.items() if name != "wnli"})
    with pytest.raises(ValueError, match="no accuracy of split 'validation_mismatched'"):
        glue_score(scores | {"mnli": {"validation_matched": {"accuracy": 0.8}}})
    with pytest.raises(ValueError, match="MRPC: no accuracy of split 'validation'"):
        glue_score(scores | {"mrpc": {"validation": {"f1": 0.8}}})
    scores["stsb"]["validation"]["pearson"] = math.nan
    assert math.isnan(glue_score(scores))


def test_the_table_fits_together() -> None:
    assert [task.title for task in GLUE] == sorted((task.title for task in GLUE), key=str.lower)
    assert {task.num_outputs for task in TASKS.values() if task.kind is not Kind.CLASSIFICATION} == {1, 2}
    assert task_named("mnli").num_outputs == 3
    assert task_named("mnli").splits == ("train", "validation_matched", "validation_mismatched")
    for task in TASKS.values():
        assert task.headline in task.metrics
        assert bool(task.labels) == (task.kind is Kind.CLASSIFICATION)
        assert (task.label_range is not None) == (task.kind is Kind.REGRESSION)
        assert task is SQUAD or set(task.metrics) <= set(METRICS)
    assert IMDB.dev_splits == ("test",)
    with pytest.raises(ValueError, match=r"no task 'sst-2'\. Give one of cola, .*sst2"):
        task_named("sst-2")
