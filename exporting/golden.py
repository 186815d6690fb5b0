"""golden.json: inputs with what the fp32 PyTorch model says of them, and the rule by which a backend is right.

check.py, which is copied into every export, and the web page have copies of the rule in words of their own.
Shapes: L tokens of an input, C outputs, V vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporting.source import Head, Source
from exporting.texts import tokenized
from exporting.variant import Outputs, Run
from finetuning.spans import MAX_ANSWER, N_BEST
from model.config import read_json

FILE = "golden.json"
VERSION = 1
COUNT = 50
Golden = dict[str, Any]
"""The content of the file."""
TOP_TOKENS = 20
"""Of a masked word, the likeliest ones are kept."""
FP32_TOLERANCE = 1e-4
NUMBER_TOLERANCE = 0.1
"""Two numbers of a regression are the same answer within this."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a variant was found to say when it was exported."""

    max_difference: float
    same_answers: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a variant says now, and whether that is what was exported."""

    max_difference: float
    same_answers: int
    is_right: bool
    reason: str
    """A sentence where it is not right."""


def make_golden(source: Source, texts: Sequence[tuple[str, ...]], origin: str, run: Run) -> Golden:
    """The content of golden.json, without variants. `origin` says where the texts are from."""
    return {
        "version": VERSION,
        "task": source.task.name if source.task is not None else source.head.value,
        "kind": source.head.value,
        "labels": list(source.labels),
        "max_length": source.max_length,
        "texts_from": origin,
        "inputs": [_golden_input(source, text, run) for text in texts],
        "fp32_tolerance": FP32_TOLERANCE,
        "variants": {},
    }


def _golden_input(source: Source, texts: tuple[str, ...], run: Run) -> dict[str, Any]:
    if source.head is Head.MASKED_LM:
        texts = (_with_mask(source, texts[0]),)
    encoded = tokenized(source, texts)
    columns = {name: list(encoded[name]) for name in source.input_names}
    outputs = [value[0] for value in run(_batch(columns))]
    given: dict[str, Any] = {"texts": list(texts), **columns}
    if source.head is Head.MASKED_LM:
        position = columns["input_ids"].index(source.tokenizer.mask_token_id)
        top = np.argsort(-outputs[0][position], kind="stable")[:TOP_TOKENS]
        said = {"position": position, "token_ids": top.tolist(), "logits": _rounded(outputs[0][position][top])}
        return given | {"outputs": said, "answer": source.tokenizer.decode([int(top[0])]).strip()}
    if source.head is Head.SPAN:
        return given | _golden_span(encoded, texts[1], *outputs)
    answer: Any = _rounded(outputs[0])[0]
    if source.head is Head.CLASSIFICATION:
        answer = source.labels[int(outputs[0].argmax())]
    return given | {"outputs": {"logits": _rounded(outputs[0])}, "answer": answer}


def _golden_span(encoded: Any, context: str, start_logits: np.ndarray, end_logits: np.ndarray) -> dict[str, Any]:
    inside = [place for place, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    starts, ends = _rounded(start_logits), _rounded(end_logits)
    span = best_span(starts, ends, inside[0], inside[-1] + 1)
    answer = ""
    if span is not None:
        answer = context[encoded.token_to_chars(span[0]).start : encoded.token_to_chars(span[1]).end]
    said = {"start_logits": starts, "end_logits": ends}
    return {"outputs": said, "context": [inside[0], inside[-1] + 1], "span": span, "answer": answer}


def best_span(starts: Sequence[float], ends: Sequence[float], first: int, behind: int) -> list[int] | None:
    """First and last token of the answer within tokens [first, behind): the best of the likeliest starts and ends."""
    pairs = [
        (start, end)
        for start in _likeliest(starts, first, behind)
        for end in _likeliest(ends, first, behind)
        if start <= end < start + MAX_ANSWER
    ]
    if not pairs:
        return None
    start, end = max(pairs, key=lambda pair: starts[pair[0]] + ends[pair[1]])
    return [start, end]


def _likeliest(logits: Sequence[float], first: int, behind: int) -> list[int]:
    return sorted(range(first, behind), key=lambda place: -logits[place])[:N_BEST]


def _with_mask(source: Source, text: str) -> str:
    """One word of the first half of what is read, replaced by the mask."""
    words = list(re.finditer(r"\w+", text))
    place = min(len(words) // 2, source.max_length // 4)
    while True:
        word = words[place]
        masked = f"{text[: word.start()]}{source.tokenizer.mask_token}{text[word.end() :]}"
        if source.tokenizer.mask_token_id in tokenized(source, (masked,))["input_ids"]:
            return masked
        place //= 2  # it was cut away; the first word is never


def run_golden(golden: Mapping[str, Any], run: Run) -> list[Outputs]:
    """One after the other, at batch 1, unpadded."""
    return [run(_batch(given)) for given in golden["inputs"]]


def _batch(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: np.array([columns[name]], dtype=np.int64) for name in names if name in columns}


def compare(golden: Mapping[str, Any], outputs: Sequence[Outputs]) -> Recorded:
    """How far outputs are from the golden ones, over all inputs; not finite counts as infinitely far."""
    differences, same = [0.0], 0
    for given, found in zip(golden["inputs"], outputs, strict=True):
        differences.append(_difference(golden["kind"], given["outputs"], found))
        same += _is_same(golden, given, found)
    return Recorded(max_difference=max(differences), same_answers=same)


def _difference(kind: str, said: Mapping[str, Any], found: Outputs) -> float:
    if kind == Head.MASKED_LM.value:
        pairs = [(said["logits"], found[0][0, said["position"], said["token_ids"]])]
    elif kind == Head.SPAN.value:
        pairs = [(said["start_logits"], found[0][0]), (said["end_logits"], found[1][0])]
    else:
        pairs = [(said["logits"], found[0][0])]
    # Of all of them at once: Python's max may pass over a nan.
    largest = float(np.max([np.abs(np.asarray(one, np.float64) - two.astype(np.float64)).max() for one, two in pairs]))
    return largest if np.isfinite(largest) else float("inf")


def _is_same(golden: Mapping[str, Any], given: Mapping[str, Any], found: Outputs) -> bool:
    kind, values = golden["kind"], found[0][0]
    if kind == Head.MASKED_LM.value:
        return bool(values[given["outputs"]["position"]].argmax() == given["outputs"]["token_ids"][0])
    if kind == Head.SPAN.value:
        return best_span(values.tolist(), found[1][0].tolist(), *given["context"]) == given["span"]
    if kind == Head.REGRESSION.value:
        return bool(abs(values[0] - given["answer"]) <= NUMBER_TOLERANCE)
    return bool(golden["labels"][int(values.argmax())] == given["answer"])


def judge(golden: Mapping[str, Any], file: str, outputs: Sequence[Outputs]) -> Verdict:
    """By the export's own record of the variant in `file`; as an exact one where there is none."""
    count = len(golden["inputs"])
    recorded = golden["variants"].get(file, {"max_difference": 0.0, "same_answers": count})
    allowed = max(2 * recorded["max_difference"], golden["fp32_tolerance"])
    found = compare(golden, outputs)
    reasons = []
    if not found.max_difference <= allowed:
        reasons.append(f"its outputs differ by {found.max_difference:.2g} where {allowed:.2g} is allowed")
    if found.same_answers < recorded["same_answers"] - 1:
        reasons.append(
            f"{found.same_answers} of {count} answers agree, {recorded['same_answers']} did when it was exported"
        )
    return Verdict(
        max_difference=found.max_difference,
        same_answers=found.same_answers,
        is_right=not reasons,
        reason="; ".join(reasons),
    )


def read_golden(folder: Path) -> Golden:
    """Errors: FileNotFoundError, ValueError."""
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no {FILE} in {folder}: not an export. Write one with export.py --input MODEL --output DIR"
        )
    content = read_json(path)
    if content.get("version") != VERSION or not isinstance(content.get("inputs"), list):
        raise ValueError(f"{path} is of version {content.get('version')}, {VERSION} is known. Export again")
    return content


def _rounded(values: np.ndarray) -> list[float]:
    """To 7 digits, which float32 has."""
    return [float(f"{value:.7g}") for value in values.tolist()]
