"""Byte-level BPE from vocab.json and merges.txt is RoBERTa's in transformers; every damaged file is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.tokenizer import load_tokenizer, vocabulary_fingerprint
from data.train_tokenizer import train_tokenizer
from tests.data.helpers import random_texts

TEXTS = [
    *random_texts(40, seed=1),
    "",
    "Grüße, 東京 😀  two  spaces\n\n\tand tabs ",
    "a <mask> b<mask>c <s>d</s><pad> <unk> don't",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As RoBERTa is published in its oldest form: two files, and the model's type."""
    train_tokenizer("bpe", random_texts(100), 450).save(tmp_path / "saved")
    place = tmp_path / "roberta"
    place.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tmp_path / "saved" / name, place / name)
    (place / "config.json").write_text('{"model_type": "roberta"}')
    return place


MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}])
def test_the_two_files_read_as_in_transformers(folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours, theirs = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    expected = theirs(TEXTS, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in ours.encode_batch(TEXTS)] == expected
    assert [ours.decode(ids) for ids in expected] == theirs.batch_decode(expected)
    assert ours.special_ids == set(theirs.all_special_ids)
    ours.save(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(str(tmp_path / "again"))
    assert again(TEXTS, add_special_tokens=False)["input_ids"] == expected
    assert vocabulary_fingerprint(tmp_path / "again") == ours.fingerprint


def test_a_mask_that_takes_the_space_before_it(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    plain = load_tokenizer(str(folder)).encode_batch(["a <mask> b"])[0].tolist()
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": MASK}))
    load_tokenizer(str(folder)).save(tmp_path / "again")
    for place in (folder, tmp_path / "again"):
        found = load_tokenizer(str(place)).encode_batch(["a <mask> b"])[0].tolist()
        assert found == AutoTokenizer.from_pretrained(str(place))("a <mask> b", add_special_tokens=False)["input_ids"]
        assert len(found) == len(plain) - 1


def test_every_file_of_a_vocabulary_has_its_fingerprint_and_other_merges_another(folder: Path, tmp_path: Path) -> None:
    expected = vocabulary_fingerprint(tmp_path / "saved")  # of its tokenizer.json
    assert vocabulary_fingerprint(folder) == load_tokenizer(str(folder / "vocab.json")).fingerprint == expected
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    lines[5], lines[6] = lines[6], lines[5]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    assert vocabulary_fingerprint(folder) != expected


def replaced(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        value = change(json.loads(text)) if name.endswith(".json") else change(text)
        (folder / name).write_text(json.dumps(value) if name.endswith(".json") else value, encoding="utf-8")

    return apply


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (replaced("vocab.json", list), r"vocab\.json' is not a JSON object \(\['<s>', .*\)"),
        (replaced("vocab.json", lambda v: v | {"<pad>": 0}), r"vocab\.json': id 0 is that of several tokens"),
        (replaced("vocab.json", lambda v: v | {"a": 4000}), r"vocab\.json': token 'a' has id 4000, but \d+ tokens"),
        (replaced("vocab.json", lambda v: v | {"a": "5"}), r"vocab\.json': token 'a' has id '5'"),
        (replaced("vocab.json", lambda v: v | {"\ud800": len(v)}), r"vocab\.json': token \d+ is half a surrogate pair"),
        (replaced("vocab.json", lambda v: {"a": 0, "b": 1}), r"merges\.txt', line 2: token .* is not in vocab\.json"),
        (replaced("merges.txt", lambda t: t + "one\n"), r"merges\.txt', line \d+: 'one' is not two tokens"),
        (replaced("merges.txt", lambda t: t + "a b c\n"), r"merges\.txt', line \d+: 'a b c' is not two tokens"),
        (
            lambda folder: (folder / "merges.txt").write_bytes(b"\xff"),
            r"merges\.txt' is not a vocabulary: not UTF-8 at byte 0",
        ),
        (lambda folder: (folder / "vocab.json").write_text("{"), r"vocab\.json' is not a JSON object"),
        (lambda folder: (folder / "vocab.json").write_text('{"a": 0, "a": 0}'), r"a key occurs twice"),
        (lambda folder: (folder / "merges.txt").unlink(), r"vocab\.json' has no merges\.txt beside it"),
        (
            replaced("vocab.json", lambda v: {{"<mask>": "<mosk>"}.get(token, token): i for token, i in v.items()}),
            r"vocab\.json' has no mask_token \(<mask>\)",
        ),
    ],
)
def test_damaged_files_are_refused_by_name(folder: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as refusal:
        load_tokenizer(str(folder))
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
