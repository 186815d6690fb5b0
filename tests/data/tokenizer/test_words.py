"""Encoding word by word is the library's own encoding of the whole text, whatever the text is made of."""

import pickle
import random
import unicodedata
from itertools import chain

import numpy as np
import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers

from data.tokenizer import Tokenizer, wordpiece
from data.tokenizer import words as words_module
from data.tokenizer.backend import BackendTokenizer
from data.tokenizer.words import WholeText, WordMemory
from data.train_tokenizer import train_tokenizer
from tests.data.helpers import random_texts

CODES = [
    *range(0x300),  # every control character, ASCII and Latin
    *range(0x300, 0x370),  # combining marks
    *range(0x1680, 0x1681),
    *range(0x180B, 0x180F),
    *range(0x1FF0, 0x2070),  # spaces of all widths, zero widths, separators, directions
    *range(0x20D0, 0x20F1),
    *range(0x2FF0, 0x3050),
    *(0x33FF, 0x3400, 0x4DBF, 0x4DC0, 0x4DFF, 0x4E00, 0x9FFF, 0xA000, 0xAC00, 0xD7FF, 0xE000, 0xF8FF),
    *(0xF900, 0xFAFF, 0xFB00, 0xFE00, 0xFE0F, 0xFEFF, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x1D400, 0x1F600),
    *(0x1FFFF, 0x20000, 0x2A6DF, 0x2A6E0, 0x2A700, 0x2B73F, 0x2B740, 0x2B81F, 0x2B820, 0x2CEAF, 0x2CEB0),
    *(0x2F7FF, 0x2F800, 0x2FA1F, 0x2FA20, 0xE0001, 0xE0100, 0x10FFFF),
]
TEXTS = [f"a{c}b {c}Was{c} {c}{c}!{c}'s {c}\n{c}x" for c in map(chr, CODES)] + [
    "",
    " ",
    "\n\n\t a",
    "x" * 5000,
    "ab " * 3000,
    "don't DON'T we'll 's's ''s '' '\u0301s x'\u0301 \u0301'll 'é",
    "a_b __init__ ²½Ⅳ① 3.14 1,000 U.S. e.g., (x) [MASK",
    "[MASK] a[SEP]b [CLS] [UNK][PAD] <mask> <s>a</s> <pad>\n<unk> [mask] <MASK>",
    "ΑΣ ΣΑΣ \u03c3 Σ İI ß ǅ",
    "日本語テキスト。中国,한국어 กขค 中\u0301文 漢\ufe00字",
    "=\u0338 .\u0301 -\u0338x '\u0301",
    "  two  spaces   three \n \n  and \t\t tabs\r\n \r ",
]


def tokenizers() -> dict[str, Tokenizer]:
    texts = [*random_texts(100), *(text for text in TEXTS[-12:] if len(text) < 500)]
    trained = train_tokenizer("wordpiece", texts, 700)
    assert isinstance(trained, BackendTokenizer)
    vocabulary = trained._backend.get_vocab()
    found = {"uncased": trained, "cased": train_tokenizer("wordpiece", texts, 700, lowercase=False)}
    found["kept together"] = wordpiece(vocabulary, {}, {"tokenize_chinese_chars": False}, "the test")
    found["accents kept"] = wordpiece(vocabulary, {}, {"strip_accents": False}, "the test")
    return found | {"bpe": train_tokenizer("bpe", texts, 700)}


TOKENIZERS = tokenizers()


def whole(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    assert isinstance(tokenizer, BackendTokenizer)
    return [encoding.ids for encoding in tokenizer._backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_character_reads_as_in_the_whole_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert [ids.tolist() for ids in tokenizer.encode_batch(TEXTS)] == whole(tokenizer, TEXTS)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_mixtures_read_as_the_whole_text(name: str) -> None:
    draw = random.Random(3)
    parts = [*"aZ5.,-'\"!_$ \n\t", "  ", "the", "Student", "'s", "'ll", *map(chr, CODES)]
    texts = ["".join(draw.choices(parts, k=draw.randint(1, 60))) for _ in range(3000)]
    tokenizer = TOKENIZERS[name]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == whole(tokenizer, texts)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_packed_ids_are_those_of_the_batch(dtype: type) -> None:
    tokenizer = TOKENIZERS["uncased"]
    texts = ["", *random_texts(20), "", "\x00"]
    tokens, lengths = tokenizer.encode_packed(texts, np.dtype(dtype))
    separate = tokenizer.encode_batch(texts)
    assert tokens.dtype == dtype
    assert lengths.tolist() == [len(ids) for ids in separate]
    assert tokens.tolist() == list(chain.from_iterable(ids.tolist() for ids in separate))
    nothing, none = tokenizer.encode_packed([], np.dtype(dtype))
    assert (nothing.shape, nothing.dtype, none.shape) == ((0,), dtype, (0,))


def test_each_word_is_encoded_once_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def encode(words: list[str]) -> list[list[int]]:
        seen.extend(words)
        return [[len(word), 7] for word in words]

    memory = WordMemory(str.split, encode, {"fixed": 3})
    expected = np.array([1, 7, 2, 7, 1, 7, 3], dtype=np.int32).tobytes()
    assert memory.encode(["a bb a fixed", ""]) == [expected, b""]
    assert memory.encode(["a bb a fixed"]) == [expected]
    assert sorted(seen) == ["a", "bb"]
    monkeypatch.setattr(words_module, "_MOST_CHARACTERS", 2)
    assert memory.encode(["a bb a fixed"]) == [expected]
    assert sorted(seen) == ["a", "a", "bb", "bb"]


def test_a_pipeline_that_is_not_known_is_left_whole() -> None:
    """Another pre-tokenizer, a normalizer that keeps control characters, a token that is looked for after normalizing."""
    changes = {
        "pre-tokenizer": lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
        "normalizer": lambda backend: setattr(backend.normalizer, "clean_text", False),
        "added": lambda backend: backend.add_tokens([AddedToken("the student", normalized=True)]),
        "prefix": lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    }
    for change, apply in changes.items():
        source = pickle.loads(pickle.dumps(TOKENIZERS["bpe" if change == "prefix" else "uncased"]))
        assert isinstance(source, BackendTokenizer)
        apply(source._backend)
        tokenizer = BackendTokenizer(source._backend, source.special_names, "the test")
        assert isinstance(tokenizer._memory()._split, WholeText), change
        texts = ["The student, the  student\x0b a\x85b naïve"]
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == whole(tokenizer, texts)


def test_a_pickle_carries_no_words() -> None:
    tokenizer = pickle.loads(pickle.dumps(TOKENIZERS["uncased"]))
    before = len(pickle.dumps(tokenizer))
    texts = random_texts(50)
    expected = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    assert len(pickle.dumps(tokenizer)) == before
    assert [ids.tolist() for ids in pickle.loads(pickle.dumps(tokenizer)).encode_batch(texts)] == expected


def test_ideographs_are_those_that_the_normalizer_isolates() -> None:
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False, clean_text=False)
    for code in chain(range(0xD800), range(0xE000, 0x110000)):
        if words_module._IDEOGRAPHS.match(chr(code)):
            assert normalizer.normalize_str(chr(code)) == f" {chr(code)} "


def test_white_space_is_what_this_python_calls_it() -> None:
    """The cut relies on str.split() cutting at nothing else than what these libraries call white space, and these."""
    cut_at = {chr(code) for code in range(0x110000) if chr(code).isspace()}
    separators = {c for c in cut_at if unicodedata.category(c) in ("Zs", "Zl", "Zp")} | set(" \t\n\r")
    assert cut_at - separators == set(words_module._NOT_WHITE_SPACE)
