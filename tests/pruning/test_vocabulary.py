"""Does a smaller tokenizer read what it should as before, whatever the vocabulary and the text?"""

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from data.tokenizer import wordpiece
from data.train_tokenizer import train_byte_level_bpe
from pruning.vocabulary import kept_tokens, new_ids_of, trimmed_record

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = st.lists(st.text("abcdé", min_size=1, max_size=8), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32 - 1)


def wordpiece_backend(draw: random.Random, words: list[str]) -> Backend:
    """Characters, most of their continuations, and pieces of the words."""
    pieces = {
        word[start:stop] for word in words for start in range(len(word)) for stop in range(start + 1, len(word) + 1)
    }
    some = [("##" if draw.random() < 0.5 else "") + piece for piece in sorted(pieces) if draw.random() < 0.6]
    characters = [prefix + c for c in "abcdé" for prefix in ("", "##") if draw.random() < 0.9]
    names = list(dict.fromkeys([*SPECIAL, *some, *characters]))
    draw.shuffle(names)
    return wordpiece(
        {name: number for number, name in enumerate(names)}, {}, {"strip_accents": False}, "a test"
    )._backend


def bpe_backend(draw: random.Random, words: list[str]) -> Backend:
    texts = [" ".join(draw.choices(words, k=6)) for _ in range(20)]
    return train_byte_level_bpe(texts, 261 + draw.randint(1, 60))._backend


def unigram_backend(draw: random.Random, words: list[str]) -> Backend:
    pieces = {
        word[start:stop] for word in words for start in range(len(word)) for stop in range(start + 1, len(word) + 1)
    }
    some = [piece for piece in sorted(pieces) if draw.random() < 0.6] + ["\u2581" + word for word in words[::2]]
    names = list(dict.fromkeys(["<unk>", "<s>", "\u2581", *some, *"abd"]))
    # Few different scores: ties must be broken as before.
    backend = Backend(models.Unigram([(name, -float(draw.randint(1, 6))) for name in names], 0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return backend


BACKENDS = {"WordPiece": wordpiece_backend, "BPE": bpe_backend, "Unigram": unigram_backend}


def ids_of(backend: Backend, text: str) -> list[int]:
    return backend.encode(text, add_special_tokens=False).ids


def counts_of(backend: Backend, texts: list[str]) -> np.ndarray:
    ids = np.array([token for text in texts for token in ids_of(backend, text)], dtype=np.int64)
    return np.bincount(ids, minlength=max(backend.get_vocab().values()) + 1)


def trimmed(backend: Backend, counts: np.ndarray, vocab_size: int = 0) -> tuple[Backend, np.ndarray]:
    record = json.loads(backend.to_str())
    special = {backend.token_to_id(name) for name in ("[UNK]", "<unk>") if backend.token_to_id(name) is not None}
    kept = kept_tokens(record, counts, special, vocab_size)
    smaller = Backend.from_str(json.dumps(trimmed_record(record, kept)))
    return smaller, new_ids_of(kept, len(counts))


@pytest.mark.parametrize("kind", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(words=WORDS, seen=SEEDS, others=st.lists(st.text("abcdé xyz", max_size=12), max_size=4))
def test_text_that_was_seen_is_read_as_before(kind: str, words: list[str], seen: int, others: list[str]) -> None:
    draw = random.Random(seen)
    backend = BACKENDS[kind](draw, words)
    texts = [" ".join(draw.choices(words, k=5)) for _ in range(6)]
    smaller, new_ids = trimmed(backend, counts_of(backend, texts))
    assert smaller.get_vocab_size() == (new_ids >= 0).sum() <= backend.get_vocab_size()
    assert sorted(smaller.get_vocab().values()) == list(range(smaller.get_vocab_size()))
    for token, number in smaller.get_vocab().items():
        assert new_ids[backend.token_to_id(token)] == number
    for text in texts + others:
        before, after = ids_of(backend, text), ids_of(smaller, text)
        if kind == "WordPiece" and backend.token_to_id("[UNK]") in before:
            continue  # a word whose longest matches led nowhere may be read now
        if text in texts or (new_ids[before] >= 0).all():
            assert after == new_ids[before].tolist(), text
        elif kind == "BPE":
            assert smaller.decode(after) == backend.decode(before) == text  # smaller pieces, nothing lost


@pytest.mark.parametrize("kind", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(words=WORDS, seen=SEEDS)
def test_the_most_frequent_stay_within_the_size(kind: str, words: list[str], seen: int) -> None:
    draw = random.Random(seen)
    backend = BACKENDS[kind](draw, words)
    counts = counts_of(backend, [" ".join(draw.choices(words, k=9)) for _ in range(6)])
    least = trimmed(backend, np.zeros_like(counts))[0].get_vocab_size()
    _, all_seen = trimmed(backend, counts)
    size = draw.randint(least, int((all_seen >= 0).sum()))
    smaller, new_ids = trimmed(backend, counts, size)
    assert smaller.get_vocab_size() <= size
    for text in words:
        before = ids_of(backend, text)
        is_known = kind != "WordPiece" or backend.token_to_id("[UNK]") not in before
        if is_known and (new_ids[before] >= 0).all():
            assert ids_of(smaller, text) == new_ids[before].tolist()
    if least:
        with pytest.raises(ValueError, match=f"--vocab_size {least - 1}: special tokens and single characters alone"):
            trimmed(backend, counts, least - 1)


def test_an_unknown_word_falls_into_smaller_pieces() -> None:
    names = [*SPECIAL, "play", "##ing", "##in", "playing", *"playing", *(f"##{c}" for c in "laying")]
    backend = wordpiece({name: number for number, name in enumerate(dict.fromkeys(names))}, {}, {}, "a test")._backend
    smaller, _ = trimmed(backend, counts_of(backend, ["play"]))
    assert smaller.encode("playing", add_special_tokens=False).tokens == ["play", "##i", "##n", "##g"]
    assert smaller.encode("zoo", add_special_tokens=False).tokens == ["[UNK]"]


@pytest.mark.parametrize("kind", ["WordPiece", "BPE"])
def test_special_tokens_are_found_under_their_new_ids(kind: str) -> None:
    draw = random.Random(0)
    backend = BACKENDS[kind](draw, ["abc", "bcd", "dab"])
    smaller, new_ids = trimmed(backend, counts_of(backend, ["abc"]))
    for pair in (("abc",), ("abc", "abc")):
        before: Any = backend.encode(*pair)
        after: Any = smaller.encode(*pair)
        assert after.ids == new_ids[before.ids].tolist()
        assert after.type_ids == before.type_ids
        assert after.tokens == before.tokens
    for old, token in backend.get_added_tokens_decoder().items():
        assert smaller.get_added_tokens_decoder()[int(new_ids[old])].content == token.content


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    record = json.loads(Backend(models.WordLevel({"a": 0}, unk_token="a")).to_str())
    with pytest.raises(ValueError, match="kind WordLevel cannot be trimmed, only WordPiece, BPE, Unigram"):
        kept_tokens(record, np.ones(1, dtype=np.int64), ())
