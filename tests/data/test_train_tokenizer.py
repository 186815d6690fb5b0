"""A trained vocabulary depends on the documents alone, learns what they repeat, and loads into transformers unchanged."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from data.tokenizer import Tokenizer, load_tokenizer
from data.train_tokenizer import train_tokenizer
from tests.data.helpers import random_texts

KINDS = ("wordpiece", "bpe", "sentencepiece")
AWKWARD = [
    "",
    "   ",
    "The student's naïve FAÇADE; 東京 tower... Москва!",
    "a\x00control\x07character, a\u200bzero width, a\u2028line separator\n\n  and ``quotes''",
    "x" * 250 + " after a word too long",
    "emoji 😀👍🏽 and é against é, ΟΔΟΣ",
]

TRAIN = """
import hashlib, sys, tempfile, pathlib
from data.train_tokenizer import train_tokenizer
from tests.data.helpers import random_texts
for kind in ("wordpiece", "bpe", "sentencepiece"):
    folder = pathlib.Path(tempfile.mkdtemp())
    train_tokenizer(kind, random_texts(200), 500).save(folder)
    for file in sorted(folder.iterdir()):
        print(kind, file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_training_writes_the_same_bytes_in_any_process() -> None:
    """Two processes, because the library seeds its hash maps anew in each; with another number of threads."""
    printed = set()
    for hash_seed, threads in (("1", "1"), ("2", "3")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "RAYON_NUM_THREADS": threads}
        printed.add(
            subprocess.run(
                [sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True, env=environment
            ).stdout
        )
    (lines,) = printed
    names = {tuple(line.split()[:2]) for line in lines.splitlines()}
    assert {("wordpiece", "vocab.txt"), ("bpe", "merges.txt"), ("sentencepiece", "spiece.model")} <= names
    assert all(len(line.split()[2]) == len(hashlib.sha256().hexdigest()) for line in lines.splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_for_documents_in_any_order(kind: str) -> None:
    texts = random_texts(60)
    shuffled = random.Random(1).sample(texts, len(texts))
    assert train_tokenizer(kind, texts, 400).fingerprint == train_tokenizer(kind, iter(shuffled), 400).fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_loads_into_transformers_and_here(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    trained = train_tokenizer(kind, random_texts(100), 450)
    trained.save(tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(str(tmp_path)), load_tokenizer(str(tmp_path))
    texts = random_texts(60, seed=1) + AWKWARD
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    for ours in (trained, again):
        assert [ids.tolist() for ids in ours.encode_batch(texts)] == expected
        assert ours.special_names == {role: getattr(theirs, role) for role in ours.special_names}
        assert [ours.decode(ids) for ids in expected] == theirs.batch_decode(expected)
    assert (again.fingerprint, again.special_ids) == (trained.fingerprint, trained.special_ids)
    assert trained.vocab_size == len(theirs)
    assert theirs(texts[0])["input_ids"] == [trained.cls_id, *expected[0], trained.sep_id]


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_what_the_text_repeats(kind: str) -> None:
    tokenizer = train_tokenizer(kind, ["unbelievably student student, student! 1984"] * 50, 320)
    names = (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if kind != "bpe" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    assert [tokenizer.decode([number]) for number in range(5)] == names
    assert tokenizer.special_ids == frozenset(range(5))
    assert len(tokenizer.encode_batch([" student"])[0]) == 1


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_case_is_kept_when_asked(kind: str) -> None:
    def pair(tokenizer: Tokenizer) -> list[list[int]]:
        return [ids.tolist() for ids in tokenizer.encode_batch(["Étude", "etude"])]

    texts = ["Étude etude"] * 50
    lower, kept = pair(train_tokenizer(kind, texts, 60)), pair(train_tokenizer(kind, texts, 60, lowercase=False))
    assert lower[0] == lower[1]
    assert kept[0] != kept[1]


def test_bytes_stand_for_whatever_training_never_saw() -> None:
    tokenizer = train_tokenizer("bpe", random_texts(20), 300)
    text = "Grüße, 東京 😀\x00\n"
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


@pytest.mark.parametrize(("kind", "needed"), [("wordpiece", 17), ("bpe", 261), ("sentencepiece", 13)])
def test_a_vocabulary_that_cannot_hold_the_characters_is_refused(kind: str, needed: int) -> None:
    with pytest.raises(ValueError, match=rf"--train_vocab 10 is too small: .* are {needed} tokens"):
        train_tokenizer(kind, ["abc defg"], 10)
    assert train_tokenizer(kind, ["abc defg"], needed).vocab_size <= needed
    with pytest.raises(ValueError, match="no words"):
        train_tokenizer(kind, ["  \n", ""], 1000)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no 'unigram' vocabulary to train\. Choose wordpiece, bpe or sentencepiece"):
        train_tokenizer("unigram", ["abc"], 1000)
    with pytest.raises(ValueError, match="keeps case"):
        train_tokenizer("bpe", ["abc"], 1000, lowercase=True)
