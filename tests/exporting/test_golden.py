"""The rule by which a backend is right: exporting.golden, and its copy in check.py, against each other and by hand."""

import numpy as np
import pytest

from evaluation.examples import Example
from exporting import check
from exporting.golden import Golden, best_span, compare, judge
from exporting.variant import Outputs
from finetuning.spans import Window, answers_of

LENGTH, CLASSES, VOCABULARY = 17, 3, 40


def golden_of(kind: str, seed: int = 0, count: int = 12) -> tuple[Golden, list[Outputs]]:
    """Random outputs, and a golden.json that has them."""
    draw = np.random.default_rng(seed)
    inputs, outputs = [], []
    for _ in range(count):
        shapes = {"mlm": [(LENGTH, VOCABULARY)], "span": [(LENGTH,)] * 2, "classification": [(CLASSES,)]}
        found = [draw.normal(size=shape).astype(np.float32) for shape in shapes.get(kind, [(1,)])]
        given: dict = {}
        if kind == "mlm":
            top = np.argsort(-found[0][5])[:20]
            said = {"position": 5, "token_ids": top.tolist(), "logits": found[0][5][top].tolist()}
        elif kind == "span":
            said = {"start_logits": found[0].tolist(), "end_logits": found[1].tolist()}
            given = {"context": [4, 16], "span": best_span(found[0].tolist(), found[1].tolist(), 4, 16)}
        else:
            said = {"logits": found[0].tolist()}
            given = {"answer": "abc"[found[0].argmax()] if kind == "classification" else float(found[0][0])}
        inputs.append({"outputs": said, **given})
        outputs.append(tuple(one[None] for one in found))
    golden = {"kind": kind, "labels": list("abc"), "inputs": inputs, "fp32_tolerance": 1e-4, "variants": {}}
    return golden, outputs


def moved(outputs: list[Outputs], by: float, seed: int = 1) -> list[Outputs]:
    draw = np.random.default_rng(seed)
    return [tuple((one + by * draw.normal(size=one.shape)).astype(np.float32) for one in found) for found in outputs]


@pytest.mark.parametrize("by", [0.0, 1e-5, 0.3, 3.0])
@pytest.mark.parametrize("kind", ["mlm", "span", "classification", "regression"])
def test_check_counts_as_we_do(kind: str, by: float) -> None:
    golden, outputs = golden_of(kind)
    ours = compare(golden, moved(outputs, by))
    difference, same = check.compare(golden, moved(outputs, by))
    assert difference == pytest.approx(ours.max_difference)
    assert same == ours.same_answers
    assert (ours.max_difference < 1e-4) == (by < 1e-4)
    assert by > 1e-4 or same == len(outputs)
    assert by < 1 or same < len(outputs)


def test_a_variant_may_be_as_far_as_it_was_when_it_was_exported() -> None:
    golden, outputs = golden_of("classification")
    other = moved(outputs, 0.3)
    found = compare(golden, other)
    assert not judge(golden, "onnx/model_int8.onnx", other).is_right, "nothing is recorded of it"
    for share, is_right in ((1.0, True), (0.51, True), (0.49, False)):
        recorded = {"max_difference": share * found.max_difference, "same_answers": found.same_answers}
        golden["variants"] = {"onnx/model_int8.onnx": recorded}
        verdict = judge(golden, "onnx/model_int8.onnx", other)
        assert verdict.is_right == is_right
        assert bool(verdict.reason) != is_right
    for more, is_right in ((1, True), (2, False)):
        recorded = {"max_difference": found.max_difference, "same_answers": found.same_answers + more}
        golden["variants"] = {"onnx/model_int8.onnx": recorded}
        assert judge(golden, "onnx/model_int8.onnx", other).is_right == is_right


@pytest.mark.parametrize(
    ("kind", "broken"), [("mlm", 0), ("span", 0), ("span", 1), ("classification", 0), ("regression", 0)]
)
def test_what_is_not_finite_is_never_right(kind: str, broken: int) -> None:
    golden, outputs = golden_of(kind)
    outputs[3] = tuple(np.full_like(one, np.nan) if row == broken else one for row, one in enumerate(outputs[3]))
    assert compare(golden, outputs).max_difference == float("inf")
    assert check.compare(golden, outputs)[0] == float("inf")
    assert not judge(golden, "x", outputs).is_right


def test_the_best_span_is_that_of_fine_tuning() -> None:
    """Where its text is found once: there the answers of both are compared by their texts."""
    draw = np.random.default_rng(2)
    context = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for _ in range(200):
        first, length = int(draw.integers(1, 6)), int(draw.integers(1, 60))
        starts, ends = draw.normal(size=(2, 70)).astype(np.float32)
        offsets = np.full((70, 2), -1)
        offsets[first : first + length] = np.stack([np.arange(length), np.arange(1, length + 1)], axis=1)
        window = Window(0, offsets, offsets[:, 0] >= 0)
        example = Example("q", ("?", context), ())
        expected = answers_of([example], [window], [np.stack([starts, ends])])["q"][0].text
        span = best_span(starts.tolist(), ends.tolist(), first, first + length)
        found = "" if span is None else context[span[0] - first : span[1] - first + 1]
        assert found == expected
        assert check.best_span(starts, ends, first, first + length) == span
