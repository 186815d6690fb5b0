"""SentencePiece .model files: ALBERT's, XLM-R's, and any other with the special tokens of masked language modelling.

The pieces are found by the `sentencepiece` package, word by word. What a family does to a text before and how it numbers the
pieces is that of transformers 5 (AlbertTokenizer, XLMRobertaTokenizer): a row of _FAMILIES each.
"""

import itertools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from data.tokenizer.base import Tokenizer
from data.tokenizer.words import MarkedWords, Split, WordMemory

_SPACE = "\u2581"  # what SentencePiece writes for a space
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # types of pieces
_PYTHON_WHITE_SPACE = [chr(code) for code in range(0x3001) if chr(code).isspace()]
_UNICODE_WHITE_SPACE = [character for character in _PYTHON_WHITE_SPACE if not "\x1c" <= character <= "\x1f"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What transformers' class of a name does with a .model."""

    tokenizer_class: str
    file: str
    """The name under which that class looks for the .model."""
    rewrites: bool = False
    """Quotes, accents and case are changed before SentencePiece sees a word (do_lower_case, keep_accents)."""
    isolates: bool = False
    """White space of any kind ends a word, and so does a user-defined piece: what follows begins a new one."""
    is_shifted: bool = False
    """fairseq's ids: <s>, <pad>, </s>, <unk>, then the model's pieces from the fourth on, then <mask>."""


_FAMILIES = {
    "albert": Family(tokenizer_class="AlbertTokenizer", file="spiece.model", rewrites=True, isolates=True),
    "xlmroberta": Family(
        tokenizer_class="XLMRobertaTokenizer", file="sentencepiece.bpe.model", isolates=True, is_shifted=True
    ),
}
_OTHERS = Family(tokenizer_class="PreTrainedTokenizerFast", file="tokenizer.model")


def family_of(name: str) -> Family:
    """The family of a tokenizer's class or a model's type, such as AlbertTokenizerFast or xlm-roberta."""
    key = re.sub("[^a-z]", "", name.lower()).removesuffix("fast").removesuffix("tokenizer")
    return _FAMILIES.get(key, _OTHERS)


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What ALBERT does to a text before SentencePiece: quotes, accents and case."""

    lowercases: bool
    keeps_accents: bool

    def __call__(self, text: str) -> str:
        text = text.replace("``", '"').replace("''", '"')
        if not self.keeps_accents and not text.isascii():
            decomposed = unicodedata.normalize("NFKD", text)
            text = "".join(c for c in decomposed if unicodedata.category(c)[0] != "M")
        # Every letter for itself, whereas lower() knows that a sigma at the end of a word is another one.
        return text.replace("\u03a3", "\u03c3").lower() if self.lowercases else text


class SentencePieceTokenizer(Tokenizer):
    """A .model as its family reads it; settings are do_lower_case and keep_accents of ALBERT."""

    def __init__(
        self, model: bytes, family: Family, special_names: dict[str, str], settings: dict[str, Any], origin: str
    ) -> None:
        proto, self._processor = _parsed(model, origin)
        self._family = family
        self._rewriting = Rewriting(
            lowercases=settings.get("do_lower_case", True), keeps_accents=settings.get("keep_accents", False)
        )
        numbered = _shifted(proto, origin) if family.is_shifted else [(p.piece, p.score) for p in proto.pieces]
        self._names = [piece for piece, _ in numbered]
        vocabulary = {piece: number for number, piece in enumerate(self._names)}
        if len(vocabulary) < len(numbered):
            repeated = next(piece for number, piece in enumerate(self._names) if vocabulary[piece] != number)
            raise ValueError(f"'{origin}': piece {repeated!r} has two ids. Use another tokenizer")
        kinds = {vocabulary[p.piece]: p.type for p in proto.pieces if p.piece in vocabulary}
        # White space that the normalizer leaves in a word although the family ends a word there.
        kept = [c for c in _UNICODE_WHITE_SPACE if family.isolates and c in self._processor.normalize(f"a{c}b")]
        self._to_space = str.maketrans(dict.fromkeys(kept, " "))
        self._has_words = _has_words(proto)
        super().__init__(
            vocabulary=vocabulary,
            special_names=special_names,
            other_special_ids=[number for number, kind in kinds.items() if kind == _CONTROL],
            rules=(repr(float(np.float32(score))) for _, score in numbered),
            origin=origin,
        )
        marks = [number for number, kind in kinds.items() if kind == _USER_DEFINED and family.isolates]
        self._marks = {self._names[number]: number for number in marks if number not in self.special_ids}
        self._bytes = frozenset(number for number, kind in kinds.items() if kind == _BYTE)

    def _split(self) -> Split:
        separators = [c for c in _PYTHON_WHITE_SPACE if self._normalized(f"a{c}b") == f"{_SPACE}a{_SPACE}b"]
        literals = [self._names[number] for number in self.special_ids]
        return MarkedWords(literals, self._marks, separators if self._has_words else [], _PYTHON_WHITE_SPACE)

    def _memory(self) -> WordMemory:
        special = {self._names[number]: number for number in self.special_ids}
        return WordMemory(self._split(), self._encode_words, special | self._marks)

    def _normalized(self, text: str) -> str:
        return str(self._processor.normalize(self._rewritten(text)))

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        rewritten = list(map(self._rewritten, words))
        # One thread: every core already has a process that encodes.
        found: list[list[int]] = self._processor.encode(rewritten, out_type=int, num_threads=1)
        if not self._family.is_shifted:
            return found
        return [[number + 1 if number else self.unk_id for number in ids] for ids in found]

    def _rewritten(self, word: str) -> str:
        word = word.translate(self._to_space)
        return self._rewriting(word) if self._family.rewrites else word

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids, special tokens included."""
        text = ""
        numbers = [int(number) for number in np.asarray(ids).tolist()]
        for is_bytes, run in itertools.groupby(numbers, key=self._bytes.__contains__):
            pieces = [self._names[number] for number in run]
            text += self._processor.decode(pieces) if is_bytes else "".join(pieces).replace(_SPACE, " ")
        return text.removeprefix(" ")

    def save(self, folder: str | Path) -> None:
        """Write the .model and the configuration, by the names that the family's class in transformers looks for."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self._family.file).write_bytes(self._processor.serialized_model_proto())
        settings: dict[str, Any] = {"tokenizer_class": self._family.tokenizer_class}
        if self._family.rewrites:
            settings |= {"do_lower_case": self._rewriting.lowercases, "keep_accents": self._rewriting.keeps_accents}
        self._write_configuration(folder, settings)


def _parsed(model: bytes, origin: str) -> tuple[Any, sentencepiece.SentencePieceProcessor]:
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]  # made at import
        if proto.pieces:
            return proto, sentencepiece.SentencePieceProcessor(model_proto=model)
        error = "it has no pieces"
    except Exception as reason:  # a DecodeError of protobuf or a RuntimeError of sentencepiece
        error = str(reason).strip().splitlines()[0]
    raise ValueError(f"'{origin}' is not a SentencePiece model ({error}). Is the file complete?")


def _shifted(proto: Any, origin: str) -> list[tuple[str, float]]:
    """The pieces as fairseq numbers them, with their scores."""
    first = [piece.piece for piece in proto.pieces[:3]]
    if first != ["<unk>", "<s>", "</s>"]:
        raise ValueError(
            f"'{origin}' begins with {first}, not with <unk>, <s>, </s> as a model of XLM-R does. Correct the configuration"
        )
    specials = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    return [*specials, *((piece.piece, piece.score) for piece in proto.pieces[3:]), ("<mask>", 0.0)]


def _has_words(proto: Any) -> bool:
    """Is a text read as its words are, each for itself? A piece must not reach from one word into the next."""
    normal = proto.normalizer_spec
    return (
        normal.add_dummy_prefix
        and normal.remove_extra_whitespaces
        and normal.escape_whitespaces
        and not proto.trainer_spec.treat_whitespace_as_suffix
        and any(piece.piece == _SPACE for piece in proto.pieces)
        and not any(_SPACE in piece.piece[1:] for piece in proto.pieces)
    )
