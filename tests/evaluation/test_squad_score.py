"""SQuAD's exact match and F1: cases worked out by hand, and the real dev set."""

import json
import os
import random
from pathlib import Path

import pytest

from evaluation.squad_score import normalised, score_answer, score_answers

FOLDER = Path(os.environ.get("DISTILLERY_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))

CASES = [
    # prediction, gold answers, exact match, F1
    ("Denver Broncos", ["Denver Broncos"], 1, 1),
    ("the Denver  Broncos!", ["denver broncos"], 1, 1),
    ("Broncos", ["Denver Broncos"], 0, 2 / 3),  # P 1, R 1/2
    ("The Denver Broncos team", ["Broncos of Denver"], 0, 2 / 3),  # {denver broncos team} and {broncos of denver}
    ("Broncos Denver", ["Denver Broncos"], 0, 1),  # bags of words: order counts in exact match alone
    ("to be or not to be", ["to be"], 0, 1 / 2),  # 2 shared of 6 and 2: P 1/3, R 1
    ("be be", ["be"], 0, 2 / 3),  # a word counts as often as it is in both
    ("Boston", ["New York", "Boston"], 1, 1),
    ("York", ["New York City", "New York"], 0, 2 / 3),  # the best of 1/2 and 2/3
    ("x y", ["x y z", "y x"], 0, 1),
    ("", ["Boston"], 0, 0),
    ("the", ["Boston"], 0, 0),  # nothing is left of it
    ("...", ["the"], 1, 0),  # both are empty: equal, but no word is shared
    ("", [""], 1, 0),
    ("a.b", ["ab"], 1, 1),  # punctuation goes without leaving a space
    ("state-of-the-art", ["stateoftheart"], 1, 1),  # so no article is left in it
    ("a-team", ["ateam"], 1, 1),
    ("$4,000", ["4000"], 1, 1),
    ("don't", ["dont"], 1, 1),
    ("don\u2019t", ["don't"], 0, 0),  # a curly apostrophe is no ASCII punctuation
    ("24\u201310", ["24-10"], 0, 0),  # nor is an en dash; the hyphen goes
    ("24\u201310", ["24\u201310"], 1, 1),
    ("\u201cGold\u201d", ["Gold"], 0, 0),
    ("caf\u00e9", ["CAF\u00c9"], 1, 1),  # lower case beyond ASCII
    ("cafe\u0301", ["caf\u00e9"], 0, 0),  # no Unicode normalisation
    ("two\u00a0words\u3000here", ["two words here"], 1, 1),  # any white space of Unicode
    ("line\none\ttwo", ["line one two"], 1, 1),
    ("an answer", ["answer"], 1, 1),
    ("Theodore and Anna", ["odore nd nna"], 0, 0),  # articles are whole words
    ("la th\u00e9", ["la"], 0, 2 / 3),  # e acute is a letter: "the" is not cut out of it
    ("the\u2013end", ["\u2013end"], 1, 1),  # an en dash bounds a word; the article goes, and then spaces do
    ("1 an 2", ["1 2"], 1, 1),
    ("A", ["a"], 1, 0),  # the official evaluation gives no F1 for an answer that is an article
]


@pytest.mark.parametrize(("prediction", "answers", "exact_match", "f1"), CASES)
def test_cases_worked_out_by_hand(prediction: str, answers: list[str], exact_match: float, f1: float) -> None:
    score = score_answer(prediction, answers)
    assert score.exact_match == exact_match
    assert score.f1 == pytest.approx(f1, abs=1e-12)


def test_normalisation() -> None:
    assert normalised("  The Quick, (brown) fox & AN a-b the ") == "quick brown fox ab"
    assert normalised("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") == ""
    assert normalised("the-the") == "thethe"  # punctuation first, articles after it


def test_means_over_all_questions_and_what_is_missing() -> None:
    gold = {"q1": ["Denver Broncos"], "q2": ["Boston"], "q3": ["New York"], "q4": ["x"]}
    report = score_answers({"q3": "York", "q1": "Denver Broncos", "other": "x", "q4": ""}, gold)
    assert report.scores == pytest.approx({"exact_match": 1 / 4, "f1": (1 + 2 / 3) / 4})
    assert report.missing == ("q2",)
    assert report.unknown == ("other",)
    assert list(report.by_question) == list(gold)
    assert (report.by_question["q2"].exact_match, report.by_question["q2"].f1) == (0.0, 0.0)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match=r"'q2' has no gold answer\. SQuAD 2\.0"):
        score_answers({}, {"q1": ["x"], "q2": []})
    with pytest.raises(ValueError, match="no questions"):
        score_answers({"q": "x"}, {})


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real data at {FOLDER}; set DISTILLERY_DATA to its folder")
def test_gold_answers_of_the_real_dev_set_score_100_and_scrambled_ones_do_not() -> None:
    articles = json.loads((FOLDER / "squad/dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    questions = [q for article in articles for paragraph in article["paragraphs"] for q in paragraph["qas"]]
    gold = {q["id"]: [answer["text"] for answer in q["answers"]] for q in questions}
    assert len(gold) == 10_570
    best = score_answers({question: answers[0] for question, answers in gold.items()}, gold)
    assert best.scores == {"exact_match": 1.0, "f1": 1.0}
    assert best.missing == best.unknown == ()
    texts = [answers[0] for answers in gold.values()]
    random.Random(0).shuffle(texts)
    scrambled = score_answers(dict(zip(gold, texts, strict=True)), gold).scores
    assert 0.0 < scrambled["exact_match"] < scrambled["f1"] < 0.05
    half = score_answers({q: answers[0] for q, answers in list(gold.items())[:5285]}, gold)
    assert half.scores == {"exact_match": 0.5, "f1": 0.5}
    assert len(half.missing) == 5285
