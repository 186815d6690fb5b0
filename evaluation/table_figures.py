"""What the table of tasks says, as plain values: scores, retention, GLUE's macro score, and what there is to know of each.

`table_of` is the door. Every figure is a fraction (0.913, not 91.3), and nan where it is undefined; nothing is rounded.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.results import TaskResult
from evaluation.table_likeness import differences, other_dev_set
from evaluation.table_scores import Score, score_of
from evaluation.tasks import GLUE, TASKS


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Student / teacher on one task, or of the macro scores. Below 0 where the student's score is, above 1 where it wins."""

    value: float
    """Of `Score.value`."""
    parts: tuple[float, ...]
    """Of `Score.parts`; `value` alone where one of the two has fewer."""
    why: str = ""
    """Why something is nan, empty where nothing is."""
    remarks: tuple[str, ...] = ()
    """In what else than the model the two sides differ."""


@dataclass(frozen=True, kw_only=True)
class Macro:
    """The plain mean over those of GLUE's tasks that all models have."""

    tasks: tuple[str, ...]
    """Names of the tasks that count."""
    missing: Mapping[str, tuple[str, ...]]
    """Those of the nine that do not, each with the models that have no result of it."""
    scores: Mapping[str, float]
    """By model that has all that count; nan where one of its scores is."""
    retention: Mapping[str, Retention]
    """By student of those: its macro score / the teacher's, not a mean of retentions."""
    remarks: Mapping[str, tuple[str, ...]]
    """By model: what there is to know of its macro score."""

    @property
    def is_glue_score(self) -> bool:
        """Whether all nine count."""
        return not self.missing

    @property
    def title(self) -> str:
        """Of its column."""
        if self.is_glue_score:
            return "GLUE score"
        return f"mean of {len(self.tasks)} of GLUE's {len(GLUE)} ({', '.join(TASKS[t].title for t in self.tasks)})"


@dataclass(frozen=True, kw_only=True)
class Table:
    """All figures of a comparison. A task that a model has no result of is absent from its scores and in `missing`."""

    models: tuple[str, ...]
    """Names, the teacher's first."""
    tasks: tuple[str, ...]
    """Names of the tasks asked for, in the order of the columns."""
    scores: Mapping[str, Mapping[str, Score]]
    """By model, then task."""
    retention: Mapping[str, Mapping[str, Retention]]
    """By student, then task: every task that both have."""
    missing: Mapping[str, tuple[str, ...]]
    """By model: the tasks asked for that it has no result of."""
    no_data: frozenset[str] = frozenset()
    """Of those, the ones known to be missing since there is no data."""
    macro: Macro | None
    """None where there is no task of GLUE that all models have."""
    results: Mapping[str, Mapping[str, TaskResult]] = field(default_factory=dict)
    """By model, then task: what the figures were taken from; empty for figures of others."""

    @property
    def teacher(self) -> str:
        return self.models[0]

    @property
    def students(self) -> tuple[str, ...]:
        return self.models[1:]


def table_of(
    results: Mapping[str, Sequence[TaskResult]],
    tasks: Collection[str] = tuple(TASKS),
    no_data: Collection[str] = (),
) -> Table:
    """The figures of a teacher and its students.

    `results` is by the model's name, the teacher's first. Of each result the cell with the best median headline counts,
    each metric as the median over its seeds. A retention is refused where the two were evaluated on other dev sets.
    `tasks` are the names of the columns, `no_data` those of them without data.
    """
    by_model = {model: {r.task: r for r in some if r.task in tasks} for model, some in results.items()}
    teacher, *students = by_model
    refusals, remarks = {}, {}
    for student in students:
        for task in by_model[student].keys() & by_model[teacher].keys():
            pair = by_model[student][task], by_model[teacher][task]
            refusals[student, task] = other_dev_set(*pair)
            remarks[student, task] = differences(*pair)
    return compared(
        {model: {task: score_of(result) for task, result in some.items()} for model, some in by_model.items()},
        tasks=tasks,
        no_data=no_data,
        refusals=refusals,
        remarks=remarks,
        results=by_model,
    )


def compared(
    scores: Mapping[str, Mapping[str, Score]],
    *,
    tasks: Collection[str],
    counted: Sequence[str] | None = None,
    no_data: Collection[str] = (),
    refusals: Mapping[tuple[str, str], str] | None = None,
    remarks: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    results: Mapping[str, Mapping[str, TaskResult]] | None = None,
) -> Table:
    """From scores to the table, the teacher's first.

    `counted` are the tasks of the macro score, by default those that all models have; `refusals` and `remarks` are by
    (student, task).
    """
    columns = tuple(name for name in TASKS if name in tasks)
    teacher, *students = scores
    refusals, remarks = refusals or {}, remarks or {}
    retention = {
        student: {
            task: retention_of(
                scores[student][task],
                scores[teacher][task],
                refusals.get((student, task), ""),
                remarks.get((student, task), ()),
            )
            for task in columns
            if task in scores[student] and task in scores[teacher]
        }
        for student in students
    }
    return Table(
        models=tuple(scores),
        tasks=columns,
        scores={m: {task: some[task] for task in columns if task in some} for m, some in scores.items()},
        retention=retention,
        missing={m: tuple(task for task in columns if task not in some) for m, some in scores.items()},
        no_data=frozenset(no_data),
        macro=_macro(scores, counted, refusals, remarks),
        results=results or {},
    )


def retention_of(student: Score, teacher: Score, refusal: str = "", remarks: tuple[str, ...] = ()) -> Retention:
    """student / teacher, undefined where the teacher's score is 0, negative or itself undefined, or where it is refused."""
    pairs = [(student.value, teacher.value)]
    if len(student.parts) == len(teacher.parts) > 1:
        pairs += zip(student.parts, teacher.parts, strict=True)
    whys = [refusal or _undefined(*pair) for pair in pairs]
    value, *parts = [math.nan if why else mine / theirs for why, (mine, theirs) in zip(whys, pairs, strict=True)]
    why = "; ".join(dict.fromkeys(why for why in whys if why))
    return Retention(value=value, parts=tuple(parts) or (value,), why=why, remarks=remarks)


def _undefined(student: float, teacher: float) -> str:
    """Why there is no ratio; empty where there is one."""
    if math.isnan(teacher):
        return "the teacher's score is undefined"
    if teacher <= 0:
        return f"the teacher's score is {100 * teacher:.3g}"
    return "the student's score is undefined" if math.isnan(student) else ""


def _macro(
    scores: Mapping[str, Mapping[str, Score]],
    counted: Sequence[str] | None,
    refusals: Mapping[tuple[str, str], str],
    remarks: Mapping[tuple[str, str], tuple[str, ...]],
) -> Macro | None:
    names = [task.name for task in GLUE]
    tasks = [t for t in names if (all(t in some for some in scores.values()) if counted is None else t in counted)]
    if not tasks:
        return None
    complete = {model: some for model, some in scores.items() if all(task in some for task in tasks)}
    means = {model: statistics.fmean(some[task].value for task in tasks) for model, some in complete.items()}
    teacher = next(iter(scores))
    retention = {}
    for student in [model for model in means if model != teacher]:
        refusal = "; ".join(f"{TASKS[t].title}: {refusals[student, t]}" for t in tasks if refusals.get((student, t)))
        unlike = [TASKS[task].title for task in tasks if remarks.get((student, task))]
        mine, theirs = (Score(value=means[model], parts=(means[model],)) for model in (student, teacher))
        retention[student] = retention_of(mine, theirs, refusal, (f"see {', '.join(unlike)}",) if unlike else ())
    return Macro(
        tasks=tuple(tasks),
        missing={t: tuple(m for m, some in scores.items() if t not in some) for t in names if t not in tasks},
        scores=means,
        retention=retention,
        remarks={model: _macro_remarks([(TASKS[t].title, some[t]) for t in tasks]) for model, some in complete.items()},
    )


def _macro_remarks(scores: Sequence[tuple[str, Score]]) -> tuple[str, ...]:
    undefined = [title for title, score in scores if math.isnan(score.value)]
    subsets = [title for title, score in scores if score.is_subset]
    return (
        *([f"The mean is undefined, since that of {', '.join(undefined)} is"] if undefined else []),
        *([f"The mean counts figures of subsets: {', '.join(subsets)}"] if subsets else []),
    )
