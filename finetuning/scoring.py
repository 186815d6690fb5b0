"""What a fine-tuned model says of a dev split: its scores, and the predictions for others to score again."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evaluation.metrics import score
from evaluation.squad_score import score_answers
from evaluation.tasks import Kind, Task
from finetuning.features import Collator
from finetuning.material import Inputs, Part
from finetuning.predicting import predict
from finetuning.spans import answers_of
from finetuning.together import on_first_rank


@dataclass(frozen=True)
class Scored:
    """One split."""

    scores: dict[str, float]
    remarks: dict[str, str]


def score_split(
    model: nn.Module,
    task: Task,
    name: str,
    part: Part,
    inputs: Inputs,
    collator: Collator,
    dtype: torch.dtype | None,
    folder: Path,
) -> Scored:
    """Together; predictions are written into `folder`. Errors: OSError."""
    logits, _ = predict(model, task.kind, inputs.features, collator, dtype)
    return on_first_rank(lambda: _score(task, name, part, inputs, logits, folder))


def _score(task: Task, name: str, part: Part, inputs: Inputs, logits: list[np.ndarray], folder: Path) -> Scored:
    if broken := sum(not np.isfinite(row).all() for row in logits):
        return Scored(
            dict.fromkeys(task.metrics, np.nan),
            dict.fromkeys(
                task.metrics, f"undefined: the model's output is not finite for {broken} of {len(logits)} inputs"
            ),
        )
    if task.kind is Kind.SPAN:
        return _score_spans(part, inputs, logits, name, folder)
    outputs = np.stack(logits)
    labels = np.array([example.label for example in part.examples])
    predictions = outputs[:, 0] if task.kind is Kind.REGRESSION else outputs.argmax(axis=1)
    with (folder / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["id", "prediction", "label", *(f"logit_{number}" for number in range(outputs.shape[1]))])
        for example, prediction, row in zip(part.examples, predictions, outputs, strict=True):
            writer.writerow([example.id, prediction, example.label, *row])
    report = score(task, predictions, labels)
    return Scored(report.scores, report.remarks)


def _score_spans(part: Part, inputs: Inputs, logits: list[np.ndarray], name: str, folder: Path) -> Scored:
    """The predictions are in the form that the official evaluation reads, with the n best answers beside."""
    answers = answers_of(part.examples, inputs.windows, logits)
    best = {question: candidates[0].text for question, candidates in answers.items()}
    (folder / f"{name}.json").write_text(json.dumps(best, ensure_ascii=False, indent=1), encoding="utf-8")
    n_best = {question: [asdict(one) for one in candidates] for question, candidates in answers.items()}
    (folder / f"{name}.nbest.json").write_text(json.dumps(n_best, ensure_ascii=False), encoding="utf-8")
    report = score_answers(
        best,
        {example.id: [answer.text for answer in example.label] for example in part.examples},  # type: ignore[union-attr]
    )
    assert not report.missing, "every question has a prediction"
    assert not report.unknown, "and nothing else has"
    return Scored(report.scores, {})
