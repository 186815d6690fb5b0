"""The ids of transformers' AutoTokenizer on real text in four languages, for every kind of vocabulary (DISTILLERY_DATA)."""

import itertools
import json
import lzma
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from data.tokenizer import load_tokenizer
from tests.data.test_real_text import FOLDER, pytestmark  # noqa: F401  # skips this file as well

KINDS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "bert": ("bert", {"bert-base-uncased-vocab.txt": "vocab.txt"}, {}),
    "multilingual": ("bert", {"bert-base-multilingual-cased-vocab.txt": "vocab.txt"}, {"do_lower_case": False}),
    "roberta": ("roberta", {"roberta-base/vocab.json": "vocab.json", "roberta-base/merges.txt": "merges.txt"}, {}),
    "albert": ("albert", {"albert/albert-30k-clean.model": "spiece.model"}, {}),
}


def folder_of(kind: str, path: Path) -> Path:
    """The published vocabulary as a folder that AutoTokenizer takes."""
    model_type, files, settings = KINDS[kind]
    for source, name in files.items():
        shutil.copy(FOLDER / "vocab" / source, path / name)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def paragraphs(file: str) -> Iterator[str]:
    with lzma.open(FOLDER / file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from (part for part in json.loads(line)["text"].split("\n") if len(part.split()) > 20)


@cache
def real_texts() -> list[str]:
    """10,000: XQuAD in English, German, Spanish and Chinese, 240 paragraphs and 1,190 questions each; Wikipedia; novels."""
    texts = []
    for language in ("en", "de", "es", "zh"):
        articles = json.loads((FOLDER / f"xquad/xquad.{language}.json").read_text(encoding="utf-8"))["data"]
        for paragraph in itertools.chain.from_iterable(article["paragraphs"] for article in articles):
            texts += [paragraph["context"], *(question["question"] for question in paragraph["qas"])]
    assert len(texts) == 4 * (240 + 1190)
    texts += itertools.islice(paragraphs("wiki/en-2018-heldout.jsonl.xz"), 2500)
    texts += itertools.islice(paragraphs("books/eltec-en-00.jsonl.xz"), 10_000 - len(texts))
    assert len(texts) == 10_000
    return texts


def check(kind: str, path: Path, texts: list[str]) -> int:
    """How many texts read otherwise: only ALBERT's may, where two readings of a word score the same."""
    from transformers import AutoTokenizer

    folder = folder_of(kind, path)
    theirs = AutoTokenizer.from_pretrained(str(folder))(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ours = [ids.tolist() for ids in load_tokenizer(str(folder)).encode_batch(texts)]
    different = [(found, expected) for found, expected in zip(ours, theirs, strict=True) if found != expected]
    if different:
        assert kind == "albert", f"{len(different)} of {len(texts)} texts read otherwise"
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
        for found, expected in different:
            scores = [sum(map(model.get_score, ids)) for ids in (found, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)
            assert "".join(model.id_to_piece(found)) == "".join(model.id_to_piece(expected))
    return len(different)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    assert check(kind, tmp_path, real_texts()[::40]) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_transformers_on_ten_thousand_texts(kind: str, tmp_path: Path) -> None:
    """sentencepiece adds scores as float32, transformers as float64: 23 texts with exact ties between two readings."""
    assert check(kind, tmp_path, real_texts()) <= 23
