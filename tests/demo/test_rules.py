"""The page's JavaScript against what it is a copy of, in Node: windows and answers, tokens and their places, the verdict."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from demo.node import HERE
from evaluation.examples import Answer, Example
from evaluation.squad_files import read_squad
from exporting.golden import judge, run_golden
from exporting.passages import EVERYTHING, QUESTIONS, UNICODE
from finetuning.spans import answers_of, span_features
from tests.demo.conftest import HAS_NODE, NO_NODE
from tests.demo.exports import INT8, onnx_run
from tests.launch import ROOT

pytestmark = pytest.mark.skipif(not HAS_NODE, reason=NO_NODE)

DATA = Path(os.environ.get("DISTILLERY_DATA", ROOT / ".." / "shared" / "data"))
ODD = [
    "cafe\u0301 e\u0301\u0301a \u0301a Stra\u00dfe \u0130x \u03a3\u0391\u03a3",
    "a\u200bb c\u00a0d \ufffd e \u4e2d\u6587f \uac00\ub098",
    "\U0001f600\U0001f600 e  two  spaces \n\n tab\t x ",
    "[MASK] hi [SEP]x <mask>  y",
    " ",
    "a" * 150 + " b",
]


def node(script: str, lines: list[Any], *arguments: object) -> list[Any]:
    """Of each line what the script says."""
    command = ["node", str(ROOT / "tests/demo" / script), *map(str, arguments)]
    answer = subprocess.run(
        command, input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, timeout=250
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return [json.loads(line) for line in answer.stdout.splitlines()]


def plain(values: np.ndarray) -> list[Any]:
    """JSON has no numbers that are not finite."""
    return [float(value) if np.isfinite(value) else ("nan" if np.isnan(value) else "inf") for value in values]


def units(text: str, place: int) -> int:
    """Places as JavaScript counts them."""
    return len(text[:place].encode("utf-16-le")) // 2


@pytest.mark.parametrize("num_words", [1, 40, 379, 380, 381, 700, 1000])
def test_windows_and_answers_are_pythons(exported: Path, num_words: int) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    rng = np.random.default_rng(num_words)
    words = (EVERYTHING + " " + UNICODE).split()
    lines, expected = [], []
    for row, longest in enumerate((384, 384, 100)):
        text = " ".join(rng.choice(words, num_words))
        example = Example("q", ("Who?", text), (Answer("", 0),))
        _, windows = span_features([example], tokenizer, ("input_ids",), longest, with_answers=False)
        logits = [rng.standard_normal((2, len(window.offsets))).astype(np.float32) for window in windows]
        if row == 1:  # many of the same: the first one counts
            logits = [np.round(values) for values in logits]
        [candidates] = answers_of([example], windows, logits).values()
        inside = [np.flatnonzero(window.offsets[:, 0] >= 0) for window in windows]
        own = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        own = [[units(text, place) for place in pair] for pair in own]
        room = longest - 3 - len(tokenizer("Who?", add_special_tokens=False)["input_ids"])
        parts = [
            [plain(values[0][places]), plain(values[1][places])] for values, places in zip(logits, inside, strict=True)
        ]
        lines.append({"spans": {"text": text, "offsets": own, "room": room, "logits": parts}})
        expected.append((windows, inside, candidates))
    for found, (windows, inside, candidates) in zip(node("rules.mjs", lines), expected, strict=True):
        assert [len(places) for places in inside] == [length for _, length, _ in found["windows"]]
        for window, places, (_, _, may_start) in zip(windows, inside, found["windows"], strict=True):
            assert window.may_start[places].tolist() == may_start
        assert [one["text"] for one in found["answers"]] == [one.text for one in candidates]
        assert [one["score"] for one in found["answers"]] == pytest.approx([one.score for one in candidates], rel=1e-6)
        assert [one["probability"] for one in found["answers"]] == pytest.approx(
            [one.probability for one in candidates]
        )


def test_a_window_without_a_valid_span_has_the_empty_answer() -> None:
    # The only end is before the only start.
    logits = [[[-math.inf, 1.0], [1.0, -math.inf]]]
    as_json = [[[value if math.isfinite(value) else "nan" for value in part] for part in window] for window in logits]
    [found] = node("rules.mjs", [{"spans": {"text": "a b", "offsets": [[0, 1], [2, 3]], "room": 9, "logits": as_json}}])
    assert [answer["text"] for answer in found["answers"]] == [""]


def test_verdicts_are_pythons(exported: Path) -> None:
    golden = json.loads((exported / "golden.json").read_bytes())
    own = run_golden(golden, onnx_run(exported / INT8))
    rng = np.random.default_rng(0)
    cases = [own]
    for noise in (0.01, 0.1, 0.2, 0.3, 1.0):
        cases.append(
            [tuple(part + noise * rng.uniform(-1, 1, part.shape).astype(np.float32) for part in one) for one in own]
        )
    cases.append([tuple(np.where(np.arange(part.shape[1]) == 3, np.nan, part) for part in one) for one in own])
    lines = []
    for outputs in cases:
        said = [[plain(part[0]) for part in one] for one in outputs]
        lines.append({"golden": {"content": golden, "file": INT8, "outputs": said}})
    verdicts = [judge(golden, INT8, outputs) for outputs in cases]
    assert {verdict.is_right for verdict in verdicts} == {True, False}
    for found, verdict in zip(node("rules.mjs", lines), verdicts, strict=True):
        assert (not found["problem"]) == verdict.is_right
        largest = math.inf if found["maxDifference"] is None else found["maxDifference"]  # JSON's infinity
        assert largest == pytest.approx(verdict.max_difference)
        if math.isfinite(largest):  # an order with numbers that are none in it is anybody's
            assert found["sameAnswers"] == verdict.same_answers


def check_tokens(folder: Path, texts: list[str]) -> None:
    if not (HERE / "node_modules").is_dir():
        pytest.skip("demo/node_modules is not there: npm ci in demo/")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    expected = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for text, found, (ids, offsets) in zip(texts, node("tokens.mjs", texts, folder), expected, strict=True):
        assert found["ids"] == ids, text
        assert found["offsets"] == [list(pair) for pair in offsets], text


def test_tokens_and_their_places_are_pythons(exported: Path, site: Path) -> None:
    check_tokens(exported, [EVERYTHING, UNICODE, *(text for pair in QUESTIONS for text in pair), *ODD])


@pytest.mark.slow
@pytest.mark.parametrize(
    "vocabulary", ["bert-base-uncased-vocab.txt", "bert-base-multilingual-cased-vocab.txt", "roberta-base"]
)
def test_tokens_of_real_texts_are_pythons(vocabulary: str, site: Path, tmp_path: Path) -> None:
    """All contexts and questions of SQuAD's dev set, or those of XQuAD in four languages."""
    path = DATA / "vocab" / vocabulary
    if not path.exists():
        pytest.skip(f"no {path}")
    if path.is_dir():
        tokenizer = transformers.RobertaTokenizerFast(vocab=str(path / "vocab.json"), merges=str(path / "merges.txt"))
    else:
        tokenizer = transformers.BertTokenizerFast(vocab=str(path), do_lower_case="uncased" in vocabulary)
    tokenizer.save_pretrained(tmp_path)
    files = [DATA / "squad/dev-v1.1.json"] if "uncased" in vocabulary else sorted((DATA / "xquad").glob("*.json"))
    texts = {text for file in files for example in read_squad(file).examples for text in example.texts}
    assert len(texts) > 5000
    check_tokens(tmp_path, [*sorted(texts), *ODD])
