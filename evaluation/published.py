"""The figures of the DistilBERT paper (Sanh et al. 2019, tables 1 and 2), to set beside ours. None was measured here."""

from collections.abc import Collection, Sequence

from evaluation.table_figures import Score, Table, compared
from evaluation.tasks import GLUE

SOURCE = "Sanh et al. 2019"
AGAIN = "DistilBERT (D)"

_GLUE = {
    "BERT-base": (56.3, 84.7, 88.6, 91.8, 89.6, 69.3, 92.7, 89.0, 53.5),
    "DistilBERT": (51.3, 82.2, 87.5, 89.2, 88.5, 59.9, 91.3, 86.9, 56.3),
}
"""Dev sets, medians of 5 seeds, in the order of `evaluation.tasks.GLUE`: one figure a task, MNLI's as well."""
_IMDB = {"BERT-base": 93.46, "DistilBERT": 92.82}
_SQUAD = {"BERT-base": (81.2, 88.5), "DistilBERT": (77.7, 85.8), AGAIN: (79.1, 86.9)}
"""Exact match and F1 on dev; (D) is a second distillation, during fine-tuning."""


def published(tasks: Collection[str], counted: Sequence[str]) -> Table:
    """Their rows with the retention that they imply; the macro score over the tasks `counted`, as beside it."""
    scores: dict[str, dict[str, Score]] = {}
    for model in ("BERT-base", "DistilBERT", *([AGAIN] if "squad" in tasks else [])):
        mine = scores[f"{model}, {SOURCE}"] = {}
        for task, percent in zip(GLUE, _GLUE.get(model, ()), strict=model in _GLUE):
            mine[task.name] = Score(value=percent / 100, parts=(percent / 100,))
        if model in _IMDB:
            mine["imdb"] = Score(value=_IMDB[model] / 100, parts=(_IMDB[model] / 100,))
        mine["squad"] = Score(value=_SQUAD[model][1] / 100, parts=tuple(percent / 100 for percent in _SQUAD[model]))
    return compared(scores, tasks=tasks, counted=counted)
