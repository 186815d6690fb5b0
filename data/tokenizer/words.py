"""Each distinct word of the texts is encoded once and remembered: a text's tokens are those of its words, end to end.

That holds for WordPiece, byte-level BPE and SentencePiece alike, which all cut a text into words first and never look across
their borders. The cut made here is one of which theirs is a refinement, so every token is still the library's. Most of the
libraries' time goes into words that they have seen many times, and into offsets that nobody here asks for.
"""

import re
from array import array
from collections.abc import Callable, Iterable

# Words of more characters than this in all are forgotten together: 2**18 English words, 50 MB in every process that encodes.
_MOST_CHARACTERS = 1 << 21

_ASCII_MARKS = r"!-/:-@\[-`{-~"
# Where str.split() cuts, and the libraries remove the character or keep it in the word.
_NOT_WHITE_SPACE = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85")
# Always a word of their own in BERT, and by far the commonest ones: with them cut off, words recur twice as often.
_COMMON_MARKS = [(mark, f" {mark} ") for mark in ".,-()\"':;/!?"]
# The characters that BERT's normalizer surrounds with spaces; the gap is the library's.
_IDEOGRAPHS = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)
# White space goes with the word behind it; a run of ASCII letters and digits ends before a mark, whatever comes next.
_BYTE_LEVEL_WORDS = re.compile(rf"\s*[0-9A-Za-z]+(?![^\s{_ASCII_MARKS}])|\s*\S+|\s+").findall

Split = Callable[[str], list[str]]


class WordMemory:
    """Encodes texts word by word.

    `split` cuts a text into words, `encode` gives the ids of each of a list of words; `fixed` are words whose ids are known.
    """

    def __init__(
        self, split: Split, encode: Callable[[list[str]], Iterable[list[int]]], fixed: dict[str, int] | None = None
    ) -> None:
        self._split, self._encode = split, encode
        self._fixed = {word: _packed([number]) for word, number in (fixed or {}).items()}
        self._known, self._characters = dict(self._fixed), 0

    def encode(self, texts: Iterable[str]) -> list[bytes]:
        """The ids of each text as int32 in the machine's byte order."""
        cut = [self._split(text) for text in texts]
        words = set[str]().union(*cut)
        if self._characters > _MOST_CHARACTERS:
            self._known, self._characters = dict(self._fixed), 0
        known = self._known
        new = list(words.difference(known))
        known.update(zip(new, map(_packed, self._encode(new)), strict=True))
        self._characters += sum(map(len, new))
        return [b"".join(map(known.__getitem__, parts)) for parts in cut]


def _packed(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


class WholeText:
    """No cut at all, for pipelines of which nothing is known."""

    def __call__(self, text: str) -> list[str]:
        return [text]


class BertWords:
    """Cuts at white space, around common marks and, where they are many, around ideographs.

    A text with one of `literals` (special tokens, looked for before anything else) or with a control character that
    str.split() takes for white space is not cut.
    """

    def __init__(self, literals: Iterable[str], isolates_ideographs: bool) -> None:
        self._uncut = (*literals, *_NOT_WHITE_SPACE)
        self._isolates_ideographs = isolates_ideographs

    def __call__(self, text: str) -> list[str]:
        if any(part in text for part in self._uncut):
            return [text]
        if self._isolates_ideographs and not text.isascii() and len(text.encode()) > 2 * len(text):
            text = _IDEOGRAPHS.sub(r" \g<0> ", text)
        for mark, isolated in _COMMON_MARKS:
            text = text.replace(mark, isolated)
        return text.split()


class ByteLevelWords:
    """Cuts before white space and after runs of ASCII letters and digits, as the pattern of GPT-2 always does."""

    def __init__(self, literals: Iterable[str]) -> None:
        self._uncut = (*literals, *_NOT_WHITE_SPACE)

    def __call__(self, text: str) -> list[str]:
        return [text] if any(part in text for part in self._uncut) else _BYTE_LEVEL_WORDS(text)


class MarkedWords:
    """Cuts at `separators` and around `literals` and `marks`, which are words of their own; else not at all.

    `white_space` is all that str.split() cuts at: it may do the work in a text without any of it that is no separator.
    """

    def __init__(
        self, literals: Iterable[str], marks: Iterable[str], separators: list[str], white_space: list[str]
    ) -> None:
        literals, marks = list(literals), list(marks)
        own = sorted([*literals, *marks], key=len, reverse=True)  # the longest that begins somewhere is taken
        self._own = re.compile(f"({'|'.join(map(re.escape, own))})")
        self._between = re.compile(f"[^{re.escape(''.join(separators))}]+" if separators else "(?s:.+)")
        self._marks = [(mark, f" {mark} ") for mark in marks]
        # Marks that contain each other or white space are left to the expression.
        is_simple = bool(separators) and all(len(mark) == 1 and not mark.isspace() for mark in marks)
        self._uncut = (*literals, *(c for c in white_space if c not in separators)) if is_simple else ("",)

    def __call__(self, text: str) -> list[str]:
        if not any(part in text for part in self._uncut):
            for mark, isolated in self._marks:
                text = text.replace(mark, isolated)
            return text.split()
        words: list[str] = []
        for number, part in enumerate(self._own.split(text)):
            words += [part] if number % 2 else self._between.findall(part)
        return words
