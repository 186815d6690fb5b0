"""WordPiece, byte-level BPE and whatever else a tokenizer.json describes, by Hugging Face's `tokenizers`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from data.tokenizer.base import SPECIAL_NAMES, Tokenizer
from data.tokenizer.words import BertWords, ByteLevelWords, Split, WholeText, WordMemory

_OPTIONS = (
    "lstrip",
    "rstrip",
    "single_word",
)  # of a special token: which white space it takes along, and where it may be
_MOST_LITERALS = 32  # added tokens to look for in every text; with more of them looking costs more than it saves


class BackendTokenizer(Tokenizer):
    """A pipeline of `tokenizers`."""

    def __init__(self, backend: Backend, special_names: dict[str, str], origin: str) -> None:
        # A tokenizer.json may carry the settings of whoever saved it; here a text is never cut or filled up.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        super().__init__(
            vocabulary=backend.get_vocab(with_added_tokens=True),
            special_names=special_names,
            other_special_ids=(number for number, token in added.items() if token.special),
            rules=_rules(backend.model),
            origin=origin,
        )

    def _memory(self) -> WordMemory:
        return WordMemory(_split_of(self._backend), self._encode_words)

    def _encode_words(self, words: list[str]) -> Iterator[list[int]]:
        for encoding in self._backend.encode_batch_fast(words, add_special_tokens=False):
            yield encoding.ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids, special tokens included."""
        return str(self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=False))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, vocab.txt (WordPiece) or vocab.json and merges.txt (BPE), and the configuration."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / "tokenizer.json"))
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if is_bert(self._backend):
            normalizer = self._backend.normalizer
            settings = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer.lowercase,
                "strip_accents": normalizer.strip_accents,
                "tokenize_chinese_chars": normalizer.handle_chinese_chars,
            }
        elif is_byte_level(self._backend):
            prefix = self._backend.pre_tokenizer.add_prefix_space
            settings = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": prefix}
            self._backend.model.save(str(folder))
        if isinstance(self._backend.model, models.WordPiece):
            vocabulary = self._backend.get_vocab(with_added_tokens=True)
            lines = [f"{token}\n" for token in sorted(vocabulary, key=lambda token: vocabulary[token])]
            (folder / "vocab.txt").write_text("".join(lines), encoding="utf-8", newline="")
        added = {token.content: _described(token) for token in self._backend.get_added_tokens_decoder().values()}
        special = {role: added[name] for role, name in self.special_names.items() if name in added}
        self._write_configuration(folder, settings | special)


def wordpiece(
    vocabulary: dict[str, int], special_names: dict[str, str], settings: dict[str, Any], origin: str
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary; settings as in BERT's tokenizer_config.json."""
    names = {role: special_names.get(role, choices[0]) for role, choices in SPECIAL_NAMES.items()}
    backend = Backend(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    _add_special_tokens(backend, names, vocabulary, settings)
    tokenizer = BackendTokenizer(backend, names, origin)
    backend.post_processor = processors.BertProcessing(
        (names["sep_token"], tokenizer.sep_id), (names["cls_token"], tokenizer.cls_id)
    )
    return tokenizer


def byte_level_bpe(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    special_names: dict[str, str],
    settings: dict[str, Any],
    origin: str,
) -> Tokenizer:
    """RoBERTa's tokenizer over a vocabulary and its merges; settings as in RoBERTa's tokenizer_config.json."""
    names = {role: special_names.get(role, choices[1]) for role, choices in SPECIAL_NAMES.items()}
    prefix = settings.get("add_prefix_space", False)
    backend = Backend(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    _add_special_tokens(backend, names, vocabulary, settings)
    tokenizer = BackendTokenizer(backend, names, origin)
    backend.post_processor = processors.RobertaProcessing(
        (names["sep_token"], tokenizer.sep_id), (names["cls_token"], tokenizer.cls_id), add_prefix_space=prefix
    )
    return tokenizer


def _add_special_tokens(
    backend: Backend, names: dict[str, str], vocabulary: dict[str, int], settings: dict[str, Any]
) -> None:
    """Only names the vocabulary has: adding a missing one would invent an id that no model knows."""
    for role, name in names.items():
        described = settings[role] if isinstance(settings.get(role), dict) else {}
        options = {option: described.get(option) is True for option in _OPTIONS}
        if name in vocabulary:
            backend.add_special_tokens([AddedToken(name, special=True, **options)])


def _described(token: AddedToken) -> str | dict[str, Any]:
    """A special token as transformers' configuration has it: its name, or an object when it has options."""
    options = {option: getattr(token, option) for option in _OPTIONS}
    if not any(options.values()):
        return str(token.content)
    return {
        "__type": "AddedToken",
        "content": token.content,
        "normalized": token.normalized,
        "special": True,
        **options,
    }


def is_bert(backend: Backend) -> bool:
    """Is this the pipeline of BERT's tokenizer, whatever its settings?"""
    return (
        isinstance(backend.model, models.WordPiece)
        and backend.model.continuing_subword_prefix == "##"
        and backend.model.max_input_chars_per_word == 100
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and backend.normalizer.clean_text
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    )


def is_byte_level(backend: Backend) -> bool:
    """Is this the pipeline of RoBERTa's tokenizer, whatever its settings?"""
    return (
        isinstance(backend.model, models.BPE)
        and not backend.model.dropout
        and not backend.model.ignore_merges
        and not backend.model.continuing_subword_prefix
        and not backend.model.end_of_word_suffix
        and backend.normalizer is None
        and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
        and backend.pre_tokenizer.use_regex
    )


def _split_of(backend: Backend) -> Split:
    """How texts may be cut before this pipeline sees them; not at all where it is not exactly a known one."""
    added = list(backend.get_added_tokens_decoder().values())
    is_raw = backend.normalizer is None or not any(
        token.normalized for token in added
    )  # looked for in the text as it is
    if len(added) > _MOST_LITERALS or not is_raw:
        return WholeText()
    literals = [token.content for token in added]
    if is_bert(backend):
        return BertWords(literals, backend.normalizer.handle_chinese_chars)
    if is_byte_level(backend) and not backend.pre_tokenizer.add_prefix_space:
        return ByteLevelWords(literals)
    return WholeText()


def _rules(model: models.Model) -> Iterator[str]:
    """What beside the vocabulary decides how a word is taken apart: merges in their order, or scores as float32."""
    if isinstance(model, models.WordPiece):
        return
    record = json.loads(model.__getstate__())
    for merge in record.get("merges", ()):
        yield merge if isinstance(merge, str) else " ".join(merge)
    if isinstance(model, models.Unigram):
        for _, score in record["vocab"]:
            yield repr(float(np.float32(score)))
