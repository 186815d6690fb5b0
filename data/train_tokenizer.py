"""Train a vocabulary on documents, with the same result every time: WordPiece, byte-level BPE or SentencePiece.

Documents are read once, and memory grows with the number of distinct words, not of documents.
"""

import heapq
import io
import itertools
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from data.tokenizer import Tokenizer, byte_level_bpe, wordpiece

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_LARGEST_ALPHABET = 1000  # BERT's: rarer characters become [UNK] instead of filling the vocabulary
_WORDS_AT_ONCE = 1000
_PREFIX = "##"
_MOST_WORDS = 1 << 20  # that SentencePiece learns from, the commonest: 1 GB of suffixes
_LONGEST_WORD = 1000  # characters; longer ones teach nothing, and SentencePiece would leave them out silently
_NO_WORDS = "the input has no words to train a vocabulary on. Give files that contain text"


def train_tokenizer(
    kind: str, documents: Iterable[str], vocab_size: int, *, lowercase: bool | None = None
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens of the kind wordpiece, bpe or sentencepiece, with its special tokens first.

    lowercase: True unless the kind is bpe, which keeps case. Deterministic: the same documents give the same vocabulary.
    Errors: ValueError for another kind, no text, or a `vocab_size` that does not even hold the characters.
    """
    if kind == "wordpiece":
        return train_wordpiece(documents, vocab_size, lowercase is not False)
    if kind == "sentencepiece":
        return train_sentencepiece(documents, vocab_size, lowercase is not False)
    if kind != "bpe":
        raise ValueError(f"there is no {kind!r} vocabulary to train. Choose wordpiece, bpe or sentencepiece")
    if lowercase:
        raise ValueError(
            "byte-level BPE keeps case and cannot lowercase. Train a wordpiece or sentencepiece vocabulary"
        )
    return train_byte_level_bpe(documents, vocab_size)


def train_wordpiece(documents: Iterable[str], vocab_size: int, lowercase: bool = True) -> Tokenizer:
    """BERT's kind; ids 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK]. Errors: ValueError as for `train_tokenizer`."""
    words = _count_words(documents, normalizers.BertNormalizer(lowercase=lowercase))
    alphabet = _alphabet(words)
    # The library numbers characters in the order of a randomly seeded hash map, and equal pairs by those numbers. Given as
    # "special" tokens they are numbered in our order instead, and everything after them follows from the counts.
    fixed = _SPECIAL_TOKENS + alphabet
    if not words:
        raise ValueError(_NO_WORDS)
    _check_size(vocab_size, len(fixed), "characters")
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


def train_byte_level_bpe(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """RoBERTa's kind; ids 0 to 4 are <s>, <pad>, </s>, <unk> and <mask>, then the 256 bytes. Errors: as train_tokenizer."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _check_size(vocab_size, len(_ROBERTA_SPECIAL_TOKENS) + len(alphabet), "bytes")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=_ROBERTA_SPECIAL_TOKENS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = (text for text in documents if text and not text.isspace())
    first = next(texts, None)
    if first is None:
        raise ValueError(_NO_WORDS)
    backend.train_from_iterator(itertools.chain([first], texts), trainer)
    merges = [tuple(merge) for merge in json.loads(backend.model.__getstate__())["merges"]]
    return byte_level_bpe(backend.get_vocab(), merges, {}, {}, "the trained vocabulary")


def train_sentencepiece(documents: Iterable[str], vocab_size: int, lowercase: bool = True) -> Tokenizer:
    """ALBERT's kind, a unigram model; ids 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK]. Errors: as train_tokenizer.

    With `lowercase` accents go as well, as ALBERT's do. It learns from the words and their counts, not from a sample of
    sentences, so nothing is drawn at random and the whole input counts.
    """
    from data.tokenizer.sentence_piece import Rewriting, SentencePieceTokenizer, family_of

    rewriting = Rewriting(lowercases=lowercase, keeps_accents=not lowercase)
    words: Counter[str] = Counter()
    for text in documents:
        words.update(text.split())
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for part in rewriting(word).split():
            counts[part[:_LONGEST_WORD]] += count
    if not counts:
        raise ValueError(_NO_WORDS)
    commonest = heapq.nsmallest(_MOST_WORDS, counts.items(), key=lambda item: (-item[1], item[0]))
    settings = {"do_lower_case": lowercase, "keep_accents": not lowercase}
    model = _unigram_model([f"{word}\t{count}" for word, count in sorted(commonest)], vocab_size)
    return SentencePieceTokenizer(model, family_of("albert"), {}, settings, "the trained vocabulary")


def _unigram_model(counted_words: list[str], vocab_size: int) -> bytes:
    """A .model from lines of a word, a tab and how often it occurs."""
    import sentencepiece  # only now: no other kind needs it

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(counted_words),
            input_format="tsv",
            model_writer=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # a text of few words has fewer pieces
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=_SPECIAL_TOKENS[0],
            unk_piece=_SPECIAL_TOKENS[1],
            control_symbols=_SPECIAL_TOKENS[2:],
            num_threads=16,  # on any machine: sums of floats depend on how they are split
            minloglevel=3,
        )
    except RuntimeError as error:
        needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if needed or vocab_size <= len(_SPECIAL_TOKENS):
            _check_size(vocab_size, int(needed[1]) if needed else len(_SPECIAL_TOKENS) + 1, "characters")
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"SentencePiece cannot train on this input ({reason}). Give more text, or other files"
        ) from error
    return model.getvalue()


def _check_size(vocab_size: int, needed: int, of_what: str) -> None:
    if vocab_size < needed:
        raise ValueError(
            f"--train_vocab {vocab_size} is too small: the special tokens and the {of_what} alone are {needed} tokens. "
            "Give at least that; 30000 is usual"
        )


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
