"""SQuAD's windows and answers: against a reading of the rules that is slow and plain, and on the real questions."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import transformers

from evaluation.examples import Answer, Example
from evaluation.squad_files import read_squad
from evaluation.squad_score import score_answers
from finetuning.features import INPUTS
from finetuning.spans import MAX_ANSWER, STRIDE, answers_of, span_features
from tests.launch import ROOT

DATA = Path(os.environ.get("DISTILLERY_DATA", ROOT / ".." / "shared" / "data"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "?", *(f"w{i}" for i in range(400))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), vocab=str(folder / "vocab.txt"))


def long_example(num_words: int, answer: int, name: str = "q", question: str = "who ?") -> Example:
    words = [f"w{i % 400}" for i in range(num_words)]
    start = sum(len(word) + 1 for word in words[:answer])
    return Example(name, (question, " ".join(words)), (Answer(words[answer], start),))


@pytest.mark.parametrize("num_words", [1, 100, 379, 380, 381, 700, 1000])
def test_windows_begin_every_128_tokens_and_cover_the_context(tokenizer: object, num_words: int) -> None:
    example = long_example(num_words, num_words // 2)
    features, windows = span_features([example], tokenizer, INPUTS, 384, with_answers=True)
    room = 384 - 5  # [CLS] who ? [SEP] ... [SEP]
    expected, first = [], 0
    while True:  # the published loop
        expected.append((first, min(room, num_words - first)))
        if first + room >= num_words:
            break
        first += STRIDE
    found = []
    for window in windows:
        inside = np.flatnonzero(window.offsets[:, 0] >= 0)
        place = example.texts[1][: window.offsets[inside[0], 0]].count(" ")
        found.append((place, len(inside)))
    assert found == expected
    # Each token may start an answer in exactly one window: that with the most context on its poorer side.
    for word in range(num_words):
        scores = [
            min(word - first, first + length - 1 - word) + 0.01 * length
            if first <= word < first + length
            else -math.inf
            for first, length in expected
        ]
        may = [
            bool(window.may_start[np.flatnonzero(window.offsets[:, 0] >= 0)][word - first])
            if first <= word < first + length
            else False
            for window, (first, length) in zip(windows, expected, strict=True)
        ]
        assert may == [number == int(np.argmax(scores)) for number in range(len(scores))]
    for feature, (first, length) in zip(features, expected, strict=True):
        answer = num_words // 2
        place = answer - first + 4 if first <= answer < first + length else 0
        assert (feature["start_positions"], feature["end_positions"]) == (place, place)


def test_a_long_question_is_cut_and_a_length_without_room_refused(tokenizer: object) -> None:
    example = long_example(50, 3, question=" ".join(f"w{i}" for i in range(90)))
    [feature], [window] = span_features([example], tokenizer, INPUTS, 384, with_answers=True)
    assert feature["input_ids"].index(tokenizer.sep_token_id) == 65  # type: ignore[attr-defined]
    assert example.texts[1][slice(*window.offsets[feature["start_positions"]])] == "w3"
    with pytest.raises(ValueError, match="--max_length 60: a question of 64 tokens"):
        span_features([example], tokenizer, INPUTS, 60, with_answers=True)


@pytest.mark.parametrize("text", ["w3", " w3", "w3 ", " w3 w4 "])
def test_spaces_around_an_answer_cost_nothing(tokenizer: object, text: str) -> None:
    context = long_example(50, 0).texts[1]
    example = Example("q", ("who ?", context), (Answer(text, context.index(text)),))
    [feature], [window] = span_features([example], tokenizer, INPUTS, 384, with_answers=True)
    first, last = window.offsets[feature["start_positions"]], window.offsets[feature["end_positions"]]
    assert context[first[0] : last[1]] == text.strip()


def brute_force(example: Example, windows: list, logits: list[np.ndarray]) -> dict[str, float]:
    """All valid spans, without limits on their number."""
    best: dict[str, float] = {}
    for window, (starts, ends) in zip(windows, logits, strict=True):
        size = len(starts)
        for i in range(size):
            for j in range(i, min(size, i + MAX_ANSWER)):
                if window.may_start[i] and window.offsets[j, 0] >= 0:
                    text = example.texts[1][window.offsets[i, 0] : window.offsets[j, 1]]
                    best[text] = max(best.get(text, -math.inf), float(starts[i] + ends[j]))
    return best


def test_answers_are_the_best_of_all_valid_spans(tokenizer: object) -> None:
    rng = np.random.default_rng(1)
    for number, num_words in enumerate((3, 30, 400, 900)):
        example = long_example(num_words, 0)
        _, windows = span_features([example], tokenizer, INPUTS, 384, with_answers=False)
        logits = [rng.standard_normal((2, len(window.offsets))).astype(np.float32) for window in windows]
        # What is not a context, or has more of it elsewhere, is no answer however sure the model is.
        logits[0][:, 0] = 100.0
        candidates = answers_of([example], windows, logits)["q"]
        expected = brute_force(example, windows, logits)
        assert candidates[0].text == max(expected, key=expected.__getitem__), number
        assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
        assert all(expected[c.text] == pytest.approx(c.score) for c in candidates)
        assert sum(c.probability for c in candidates) == pytest.approx(1)
        assert len({c.text for c in candidates}) == len(candidates) <= 20


def test_a_question_without_a_valid_span_has_the_empty_answer(tokenizer: object) -> None:
    example = long_example(5, 0)
    _, windows = span_features([example], tokenizer, INPUTS, 384, with_answers=False)
    size = len(windows[0].offsets)
    logits = np.full((2, size), -np.inf, dtype=np.float32)
    logits[0, 8], logits[1, 4] = 1.0, 1.0  # the only end lies before the only start
    assert [c.text for c in answers_of([example], windows, [logits])["q"]] == [""]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE"])
def test_real_questions_are_answered_by_a_model_that_knows(kind: str) -> None:
    """Sure of the gold positions, nearly all of SQuAD's dev set comes out right: only tokens that are not words cost."""
    path = DATA / "squad/dev-v1.1.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    if kind == "wordpiece":
        tokenizer = transformers.BertTokenizerFast(vocab=str(DATA / "vocab/bert-base-uncased-vocab.txt"))
    else:
        folder = DATA / "vocab/roberta-base"
        tokenizer = transformers.RobertaTokenizerFast(
            vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
        )
    examples = list(read_squad(path).examples[::20])
    features, windows = span_features(examples, tokenizer, INPUTS, 384, with_answers=True)
    logits = []
    for feature in features:
        both = np.zeros((2, len(feature["input_ids"])), dtype=np.float32)
        if feature["start_positions"]:
            both[0, feature["start_positions"]] = both[1, feature["end_positions"]] = 10.0
        logits.append(both)
    answers = {name: found[0].text for name, found in answers_of(examples, windows, logits).items()}
    report = score_answers(answers, {e.id: [a.text for a in e.label] for e in examples})  # type: ignore[union-attr]
    assert report.scores["exact_match"] > 0.985
    assert report.scores["f1"] > 0.99
