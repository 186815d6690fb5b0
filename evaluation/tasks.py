"""The tasks that models are fine-tuned on: GLUE's nine, IMDb and SQuAD 1.1. One row each, and GLUE's weighting of them.

Split, column and label names are those of the hub's `glue`, `imdb` and `squad`, whichever way a task's files are read.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Scores = Mapping[str, float]
"""Metric -> value as a fraction (0.913, not 91.3); nan where it is undefined."""


class Kind(Enum):
    """What a model predicts."""

    CLASSIFICATION = "one of the labels"
    REGRESSION = "a number"
    SPAN = "where in the context the answer begins and ends"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The hyperparameters to try; the best dev score is reported."""

    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    epochs: tuple[int, ...]
    source: str
    """Where it was published."""


# DistilBERT's authors publish none for their fine-tuning: these are the grids of what it distils.
BERT_GLUE = Grid(
    batch_sizes=(32,),
    learning_rates=(5e-5, 4e-5, 3e-5, 2e-5),
    epochs=(3,),
    source="Devlin et al. 2019 (BERT), section 4.1",
)
BERT_SQUAD = Grid(
    batch_sizes=(32,), learning_rates=(5e-5,), epochs=(3,), source="Devlin et al. 2019 (BERT), section 4.2"
)
BERT_ANY = Grid(
    batch_sizes=(16, 32),
    learning_rates=(5e-5, 3e-5, 2e-5),
    epochs=(2, 3, 4),
    source="Devlin et al. 2019 (BERT), appendix A.3, for any task",
)
ROBERTA_GLUE = Grid(
    batch_sizes=(16, 32),
    learning_rates=(1e-5, 2e-5, 3e-5),
    epochs=(10,),
    source="Liu et al. 2019 (RoBERTa), table 10",
)
ROBERTA_SQUAD = Grid(
    batch_sizes=(48,), learning_rates=(1.5e-5,), epochs=(2,), source="Liu et al. 2019 (RoBERTa), table 10"
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What there is to know of a task before its data is read."""

    name: str
    """The hub's name of it, in lower case."""
    title: str
    """As it is written in papers, and as GLUE names the folder of its files."""
    kind: Kind = Kind.CLASSIFICATION
    text_columns: tuple[str, ...]
    """One text, or a pair in the order in which the model reads them."""
    labels: tuple[str, ...] = ()
    """Class 0 first; none for regression and spans."""
    label_range: tuple[float, float] | None = None
    """Smallest and largest label of a regression."""
    metrics: tuple[str, ...] = ("accuracy",)
    headline: str = "accuracy"
    """The metric that picks the best of a grid and stands for the task in a table."""
    dev_splits: tuple[str, ...] = ("validation",)
    """Labelled, never trained on; more than one are reported apart and count together."""
    hub: tuple[str, str | None] = ("nyu-mll/glue", None)
    """Repository and configuration."""
    grids: tuple[Grid, ...] = (BERT_GLUE, ROBERTA_GLUE)
    """Published ones, the one to start from first."""

    @property
    def num_outputs(self) -> int:
        """Width of the task's head: classes, 1 for a number, 2 (start, end) for a span."""
        return {Kind.CLASSIFICATION: len(self.labels), Kind.REGRESSION: 1, Kind.SPAN: 2}[self.kind]

    @property
    def splits(self) -> tuple[str, ...]:
        """All that have labels."""
        return ("train", *self.dev_splits)


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

# Headlines are those of Devlin et al. 2019 (BERT), table 1: F1 for QQP and MRPC, Spearman for STS-B.
GLUE = (
    Task(
        name="cola",
        title="CoLA",
        text_columns=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        headline="matthews",
        hub=("nyu-mll/glue", "cola"),
    ),
    Task(
        name="mnli",
        title="MNLI",
        text_columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        dev_splits=("validation_matched", "validation_mismatched"),
        hub=("nyu-mll/glue", "mnli"),
    ),
    Task(
        name="mrpc",
        title="MRPC",
        text_columns=_SENTENCES,
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        headline="f1",
        hub=("nyu-mll/glue", "mrpc"),
    ),
    Task(
        name="qnli",
        title="QNLI",
        text_columns=("question", "sentence"),
        labels=_ENTAILMENT,
        hub=("nyu-mll/glue", "qnli"),
    ),
    Task(
        name="qqp",
        title="QQP",
        text_columns=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        headline="f1",
        hub=("nyu-mll/glue", "qqp"),
    ),
    Task(name="rte", title="RTE", text_columns=_SENTENCES, labels=_ENTAILMENT, hub=("nyu-mll/glue", "rte")),
    Task(
        name="sst2",
        title="SST-2",
        text_columns=("sentence",),
        labels=("negative", "positive"),
        hub=("nyu-mll/glue", "sst2"),
    ),
    Task(
        name="stsb",
        title="STS-B",
        kind=Kind.REGRESSION,
        text_columns=_SENTENCES,
        label_range=(0.0, 5.0),
        metrics=("pearson", "spearman"),
        headline="spearman",
        hub=("nyu-mll/glue", "stsb"),
    ),
    Task(
        name="wnli",
        title="WNLI",
        text_columns=_SENTENCES,
        labels=("not_entailment", "entailment"),
        hub=("nyu-mll/glue", "wnli"),
    ),
)
"""The nine, in alphabetical order as in the DistilBERT paper's table 1, WNLI among them."""

IMDB = Task(
    name="imdb",
    title="IMDb",
    text_columns=("text",),
    labels=("neg", "pos"),
    dev_splits=("test",),
    hub=("stanfordnlp/imdb", None),
    grids=(BERT_ANY,),
)
SQUAD = Task(
    name="squad",
    title="SQuAD 1.1",
    kind=Kind.SPAN,
    text_columns=("question", "context"),
    metrics=("exact_match", "f1"),
    headline="f1",
    hub=("rajpurkar/squad", None),
    grids=(BERT_SQUAD, ROBERTA_SQUAD),
)
TASKS = {task.name: task for task in (*GLUE, IMDB, SQUAD)}
"""By name."""


def task_named(name: str) -> Task:
    """Errors: ValueError for a name that is not there, listing those that are."""
    if name not in TASKS:
        raise ValueError(f"there is no task '{name}'. Give one of {', '.join(TASKS)}")
    return TASKS[name]


def task_score(task: Task, scores: Mapping[str, Scores]) -> float:
    """What the task counts in GLUE: the plain mean of its metrics over its dev splits; nan where one of them is.

    `scores` is by dev split. Errors: ValueError where a split or metric is missing: a mean without it is another figure.
    """
    values = []
    for split in task.dev_splits:
        for metric in task.metrics:
            if metric not in scores.get(split, {}):
                raise ValueError(
                    f"{task.title}: no {metric} of split '{split}'. Evaluate on {' and '.join(task.dev_splits)}"
                )
            values.append(scores[split][metric])
    return statistics.fmean(values)


def headline_score(task: Task, scores: Mapping[str, Scores]) -> float:
    """The headline metric, the mean of it over the task's dev splits. Errors: KeyError for a split that is missing."""
    return statistics.fmean(scores[split][task.headline] for split in task.dev_splits)


def glue_score(scores: Mapping[str, Mapping[str, Scores]]) -> float:
    """GLUE's macro score (Wang et al. 2019, section 3) over all nine tasks: each counts the same, as its `task_score`.

    `scores` is by task name and dev split. nan where a metric is. Errors: ValueError where a task is missing.
    """
    missing = [task.title for task in GLUE if task.name not in scores]
    if missing:
        raise ValueError(f"GLUE's score is of nine tasks; {', '.join(missing)} missing. Evaluate on those as well")
    return statistics.fmean(task_score(task, scores[task.name]) for task in GLUE)
