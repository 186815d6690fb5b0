"""SQuAD: questions and contexts as windows of tokens, and answers out of what a model says of the windows.

As Devlin et al. 2019 do it: questions of at most 64 tokens, a window every 128 tokens of the context, an answer taken from
the window in which its first token has the most context around it.
Shapes: L tokens of a window.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.examples import Example
from finetuning.features import Feature

STRIDE = 128
"""Tokens of the context from the begin of one window to that of the next."""
MAX_QUESTION = 64
"""Tokens of a question."""
MAX_ANSWER = 30
"""Tokens of an answer."""
N_BEST = 20
"""Starts, and ends, of a window that are tried with each other; answers of a question that are kept."""


@dataclass(frozen=True)
class Window:
    """A stretch of a context, with the question before it."""

    example: int
    """Row of the question."""
    offsets: np.ndarray  # (L, 2)
    """First character and the one behind the last, of the context; -1 outside of it."""
    may_start: np.ndarray  # (L,)
    """Whether no other window of the question has more context around this token."""


@dataclass(frozen=True)
class Candidate:
    """A possible answer."""

    text: str
    score: float
    """Start logit plus end logit."""
    probability: float
    """Among the candidates of the question."""


def span_features(
    examples: Sequence[Example], tokenizer: Any, columns: Iterable[str], max_length: int, *, with_answers: bool
) -> tuple[list[Feature], list[Window]]:
    """All windows of all questions, in order; with start_positions and end_positions of the first gold answer.

    A window without the whole answer points at its first token, as the published code does.
    Errors: ValueError where `max_length` leaves no room for a context.
    """
    contexts = [example.texts[1] for example in examples]
    questions = _shortened([example.texts[0] for example in examples], tokenizer)
    lengths = [len(ids) for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]]
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - max(lengths) - special
    if room < 1:
        raise ValueError(
            f"--max_length {max_length}: a question of {max(lengths)} tokens leaves no room for its context"
        )
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    found: dict[int, list[tuple[Feature, np.ndarray]]] = {}
    for length, rows in by_length.items():
        encoded = tokenizer(
            [questions[row] for row in rows],
            [contexts[row] for row in rows],
            truncation="only_second",
            max_length=max_length,
            stride=max(0, max_length - length - special - STRIDE),  # that library's word for the overlap
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        kept = [name for name in columns if name in encoded]
        for number, place in enumerate(encoded["overflow_to_sample_mapping"]):
            feature = {name: encoded[name][number] for name in kept}
            in_context = np.array([part == 1 for part in encoded.sequence_ids(number)])
            offsets = np.where(in_context[:, None], np.array(encoded["offset_mapping"][number]), -1)
            found.setdefault(rows[place], []).append((feature, offsets))
    features, windows = [], []
    for row, example in enumerate(examples):
        parts = [offsets for _, offsets in found[row]]
        for (feature, offsets), may_start in zip(found[row], _most_context(parts), strict=True):
            windows.append(Window(row, offsets, may_start))
            features.append(feature | (_labels(example, offsets) if with_answers else {}))
    return features, windows


def _shortened(questions: Sequence[str], tokenizer: Any) -> list[str]:
    stripped = [question.strip() for question in questions]  # byte-level tokenizers would read spaces in front as words
    encoded = tokenizer(stripped, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        question if len(offsets) <= MAX_QUESTION else question[: offsets[MAX_QUESTION - 1][1]]
        for question, offsets in zip(stripped, encoded, strict=True)
    ]


def _most_context(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each window (L,): which tokens have nowhere more context on their poorer side; the first window wins ties."""
    if len(parts) == 1:
        return [parts[0][:, 0] >= 0]
    best: dict[int, tuple[float, int]] = {}
    for number, offsets in enumerate(parts):
        inside = np.flatnonzero(offsets[:, 0] >= 0)
        for place in inside:
            # The share of the length decides between windows that give the same.
            score = min(place - inside[0], inside[-1] - place) + 0.01 * len(inside)
            key = int(offsets[place, 0])
            if key not in best or score > best[key][0]:
                best[key] = (score, number)
    masks = []
    for number, offsets in enumerate(parts):
        masks.append(np.array([start >= 0 and best[int(start)][1] == number for start in offsets[:, 0]]))
    return masks


def _labels(example: Example, offsets: np.ndarray) -> Feature:
    answer = example.label[0]  # type: ignore[index]
    # Some answers have a space at their end, which is in no token.
    first = answer.start + len(answer.text) - len(answer.text.lstrip())
    behind = answer.start + len(answer.text.rstrip())
    starts = np.flatnonzero((offsets[:, 0] <= first) & (offsets[:, 1] > first) & (offsets[:, 0] >= 0))
    ends = np.flatnonzero((offsets[:, 0] < behind) & (offsets[:, 1] >= behind))
    if not len(starts) or not len(ends):
        return {"start_positions": np.int64(0), "end_positions": np.int64(0)}
    return {"start_positions": np.int64(starts[0]), "end_positions": np.int64(ends[-1])}


def answers_of(
    examples: Sequence[Example], windows: Sequence[Window], logits: Sequence[np.ndarray]
) -> dict[str, list[Candidate]]:
    """The best candidates of every question by its id, best first. logits: (2, L) for each window, start and end.

    A question none of whose windows has a valid span has the empty answer.
    """
    scored: dict[int, dict[str, float]] = {row: {} for row in range(len(examples))}
    for window, (start_logits, end_logits) in zip(windows, logits, strict=True):
        texts, context = scored[window.example], examples[window.example].texts[1]
        for start, end, score in _best_spans(window, start_logits, end_logits):
            text = context[window.offsets[start, 0] : window.offsets[end, 1]]
            texts[text] = max(score, texts.get(text, -np.inf))
    return {examples[row].id: _candidates(texts) for row, texts in scored.items()}


def _best_spans(window: Window, start_logits: np.ndarray, end_logits: np.ndarray) -> list[tuple[int, int, float]]:
    inside = window.offsets[:, 0] >= 0
    starts = _highest(np.where(inside & window.may_start, start_logits, -np.inf))
    ends = _highest(np.where(inside, end_logits, -np.inf))
    start, end = starts[:, None], ends[None, :]
    valid = (end >= start) & (end < start + MAX_ANSWER)
    rows, columns = np.nonzero(valid)
    return [
        (int(starts[row]), int(ends[column]), float(start_logits[starts[row]] + end_logits[ends[column]]))
        for row, column in zip(rows, columns, strict=True)
    ]


def _highest(logits: np.ndarray) -> np.ndarray:
    """Places of the highest ones that are possible at all."""
    places = np.argsort(-logits, kind="stable")[:N_BEST]
    return places[np.isfinite(logits[places])]


def _candidates(texts: Mapping[str, float]) -> list[Candidate]:
    best = sorted(texts.items(), key=lambda item: -item[1])[:N_BEST] or [("", 0.0)]
    weights = np.exp(np.array([score for _, score in best]) - best[0][1])
    return [
        Candidate(text, score, float(weight / weights.sum()))
        for (text, score), weight in zip(best, weights, strict=True)
    ]
