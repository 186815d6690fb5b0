"""SQuAD 1.1: exact match and F1 of answers, question by question as the official evaluation counts them."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone, as the official evaluation has it


@dataclass(frozen=True)
class QuestionScore:
    """How good one answer is, each figure the best over the question's gold answers."""

    exact_match: float
    f1: float


@dataclass(frozen=True)
class SquadReport:
    """The figures over all questions of a data set."""

    scores: dict[str, float]
    """exact_match and f1 as fractions (the official evaluation prints 100 times them)."""
    by_question: dict[str, QuestionScore]
    """In the order of the gold answers."""
    missing: tuple[str, ...]
    """Questions without a prediction; they count 0."""
    unknown: tuple[str, ...]
    """Predictions for questions that are not there; they count nothing."""


def score_answers(predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]]) -> SquadReport:
    """Predicted answers against gold ones, both by question id.

    Errors: ValueError where there are no questions, or a question has no gold answer (as in SQuAD 2.0).
    """
    if not gold:
        raise ValueError("no questions to score. Give the questions of a SQuAD 1.1 file with their answers")
    by_question = {}
    for question, answers in gold.items():
        if not answers:
            raise ValueError(f"question '{question}' has no gold answer. SQuAD 2.0 is another task: give a v1.1 file")
        known = question in predictions
        by_question[question] = score_answer(predictions[question], answers) if known else QuestionScore(0.0, 0.0)
    return SquadReport(
        scores={
            "exact_match": sum(score.exact_match for score in by_question.values()) / len(gold),
            "f1": sum(score.f1 for score in by_question.values()) / len(gold),
        },
        by_question=by_question,
        missing=tuple(question for question in gold if question not in predictions),
        unknown=tuple(question for question in predictions if question not in gold),
    )


def score_answer(prediction: str, answers: Sequence[str]) -> QuestionScore:
    """One prediction against all gold answers of its question; the best of each figure, which may be of two answers."""
    found, wanted = normalised(prediction), {normalised(answer) for answer in answers}
    return QuestionScore(exact_match=float(found in wanted), f1=max(_word_f1(found, answer) for answer in wanted))


def _word_f1(prediction: str, answer: str) -> float:
    """F1 of two bags of words, normalised. 0 where either is empty, even if both are: v1.1 has it so."""
    predicted, wanted = prediction.split(), answer.split()
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def normalised(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces; in this order, on which the result depends."""
    unpunctuated = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", unpunctuated).split())
