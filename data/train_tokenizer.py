"""Train a WordPiece vocabulary on documents, with the same result every time."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from data.tokenizer import Tokenizer, wordpiece

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LARGEST_ALPHABET = 1000  # BERT's: rarer characters become [UNK] instead of filling the vocabulary
_WORDS_AT_ONCE = 1000
_PREFIX = "##"


def train_wordpiece(documents: Iterable[str], vocab_size: int, lowercase: bool = True) -> Tokenizer:
    """A WordPiece tokenizer of at most `vocab_size` tokens; ids 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK].

    Deterministic: the same documents give the same vocabulary. Documents are read once; memory grows with the number of
    distinct words. Errors: ValueError when `vocab_size` does not even hold the characters.
    """
    words = _count_words(documents, normalizers.BertNormalizer(lowercase=lowercase))
    alphabet = _alphabet(words)
    # The library numbers characters in the order of a randomly seeded hash map, and equal pairs by those numbers. Given as
    # "special" tokens they are numbered in our order instead, and everything after them follows from the counts.
    fixed = _SPECIAL_TOKENS + alphabet
    if not words:
        raise ValueError("the input has no words to train a vocabulary on. Give files that contain text")
    if vocab_size < len(fixed):
        raise ValueError(
            f"--train_vocab {vocab_size} is too small: the special tokens and the characters alone are {len(fixed)} tokens. "
            "Give at least that; 30000 is usual"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        initial_alphabet=[character for character in alphabet if not character.startswith(_PREFIX)],
        limit_alphabet=_LARGEST_ALPHABET,
        show_progress=False,
    )
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(_repeated(words), trainer)
    return wordpiece(backend.get_vocab(), {}, {"do_lower_case": lowercase}, "the trained vocabulary")


def _count_words(documents: Iterable[str], normalizer: normalizers.Normalizer) -> Counter[str]:
    """Occurrences of each word as BERT splits text: at white space, and around every punctuation mark."""
    marks = "".join(chr(code) for code in range(128, sys.maxunicode) if unicodedata.category(chr(code))[0] == "P")
    ascii_marks = "".join(chr(code) for code in range(33, 127) if not chr(code).isalnum())
    punctuation = f"[{re.escape(ascii_marks + marks)}]"
    split = re.compile(rf"{punctuation}|[^\s{punctuation[1:-1]}]+").findall
    words: Counter[str] = Counter()
    for text in documents:
        words.update(split(normalizer.normalize_str(text)))
    return words


def _alphabet(words: Counter[str]) -> list[str]:
    """The commonest characters, then the same with ## where they continue a word; each in order of code point."""
    counts: Counter[str] = Counter()
    continuing: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        continuing.update(word[1:])
    commonest = sorted(counts, key=lambda character: (-counts[character], character))[:_LARGEST_ALPHABET]
    kept = sorted(commonest)
    return kept + [_PREFIX + character for character in kept if character in continuing]


def _repeated(words: Counter[str]) -> Iterator[str]:
    """Each word as often as it occurs: the trainer only counts what it reads."""
    for word in sorted(words):
        whole, rest = divmod(words[word], _WORDS_AT_ONCE)
        yield from [f"{word} " * _WORDS_AT_ONCE] * whole
        yield f"{word} " * rest


def train_tokenizer(kind: str, documents: Iterable[str], vocab_size: int) -> Tokenizer:
    return train_wordpiece(documents, vocab_size)
