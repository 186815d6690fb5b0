"""The files of a tokenizer's folder, read and checked: configuration, vocabulary, merges; and where the hub puts them."""

import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.tokenizer.base import SPECIAL_NAMES

MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *MODEL_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
)

# BERT's, RoBERTa's and ALBERT's: true, false or null.
_SETTINGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "keep_accents")
_AGAIN = "Download or save the tokenizer again"
# "name" or "owner/name", which huggingface_hub would accept; a path with more parts or a file's suffix is no such thing.
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def read_configuration(folder: Path) -> dict[str, Any]:
    """What special_tokens_map.json and tokenizer_config.json say; the latter wins."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            config |= _checked(file, read_object(file))
    return config


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object. Errors: ValueError, also for a repeated key."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{file}' is not a JSON object ({error}). {_AGAIN}") from error
    if not isinstance(record, dict):
        raise ValueError(f"'{file}' is not a JSON object ({reprlib.repr(record)}). {_AGAIN}")
    return record


def special_names(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a configuration names, by role."""
    return {role: _token_text(config[role]) for role in SPECIAL_NAMES if config.get(role)}


def read_vocabulary(file: Path) -> dict[str, int]:
    """Token -> id of a vocab.txt, one token a line."""
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(_lines(file)):
        if token in vocabulary:
            raise ValueError(
                f"'{file}', line {number + 1}: token {token!r} was already on line {vocabulary[token] + 1}"
            )
        vocabulary[token] = number
    return vocabulary


def read_vocabulary_json(file: Path) -> dict[str, int]:
    """Token -> id of a vocab.json, which has every id from 0 on once."""
    record = read_object(file)
    for token, number in record.items():
        if type(number) is not int or not 0 <= number < len(record):
            found = f"token {reprlib.repr(token)} has id {reprlib.repr(number)}"
            raise ValueError(f"'{file}': {found}, but {len(record)} tokens have the ids from 0 on. {_AGAIN}")
        if not _is_text(token):
            raise ValueError(f"'{file}': token {number} is half a surrogate pair, which is no text. {_AGAIN}")
    if len(set(record.values())) < len(record):
        repeated = min(number for number, count in _counts(record).items() if count > 1)
        raise ValueError(f"'{file}': id {repeated} is that of several tokens. {_AGAIN}")
    return record


def read_merges(file: Path, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of a merges.txt in order, each of which and what it becomes are in the vocabulary."""
    merges = []
    for number, line in enumerate(_lines(file), start=1):
        if (number == 1 and line.startswith("#version")) or not line:
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise ValueError(f"'{file}', line {number}: {reprlib.repr(line)} is not two tokens with a space between")
        for token in (left, right, left + right):
            if token not in vocabulary:
                raise ValueError(
                    f"'{file}', line {number}: token {reprlib.repr(token)} is not in vocab.json. "
                    "Are the two files of the same tokenizer?"
                )
        merges.append((left, right))
    return merges


def download(name: str) -> Path:
    """The local copy of a hub repository's tokenizer files."""
    missing = f"no tokenizer at '{name}': no such file or folder"
    if not _HUB_ID.fullmatch(name) or name.endswith((".txt", ".json", ".model")):
        raise FileNotFoundError(
            f"{missing}. Give a Hugging Face folder, a tokenizer.json, a vocab.txt, a .model or the name of a model"
        )
    import huggingface_hub  # only now: a second of imports that local files do not need

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(TOKENIZER_FILES)))
    except Exception as error:  # offline, unknown, private, proxy: many kinds, and one thing to do about them
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub does not provide a model of that name ({reason}). "
            "Check the name and the network, or give a local folder"
        ) from error


def _checked(file: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The entries, of which those that are used here must be of the right kind."""
    wrong = [name for name in _SETTINGS if not isinstance(record.get(name), bool | None)]
    # Printable: half of a surrogate pair is a str to JSON and to nobody else.
    texts = {role: _token_text(record[role]) for role in SPECIAL_NAMES if record.get(role)}
    wrong += [role for role, text in texts.items() if not isinstance(text, str) or not text.isprintable()]
    if wrong:
        values = ", ".join(f"{name} is {reprlib.repr(record[name])}" for name in wrong)
        raise ValueError(f"'{file}': {values}, not the kind of value expected. {_AGAIN}")
    return {name: value for name, value in record.items() if value is not None}  # null: the default


def _lines(file: Path) -> Iterator[str]:
    try:
        # Not splitlines(): vocabularies contain U+2028 and its like as tokens.
        for line in file.read_bytes().decode("utf-8").removesuffix("\n").split("\n"):
            yield line.rstrip("\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{file}' is not a vocabulary: not UTF-8 at byte {error.start}. Give one token a line"
        ) from error


def _token_text(token: Any) -> Any:
    """Configurations name a token directly or as {"content": ...}."""
    return token.get("content") if isinstance(token, dict) else token


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a repeated key would hide one of its values."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key occurs twice in an object")
    return record


def _is_text(token: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in token)


def _counts(vocabulary: dict[str, int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for number in vocabulary.values():
        counts[number] = counts.get(number, 0) + 1
    return counts
