"""From a path or a hub name to its tokenizer."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from data.tokenizer.backend import BackendTokenizer, byte_level_bpe, wordpiece
from data.tokenizer.base import SPECIAL_NAMES, Tokenizer
from data.tokenizer.files import (
    MODEL_FILES,
    download,
    read_configuration,
    read_merges,
    read_object,
    read_vocabulary,
    read_vocabulary_json,
    special_names,
)

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", *MODEL_FILES)  # a folder's first of these is read

_PROBE = "a1, \u6771 \U0001f600\ue000"  # a tokenizer.json may load and fail at the first word that it does not know


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer at `path`: a Hugging Face folder, one file of it, or else the name of a hub repository.

    In a folder tokenizer.json is preferred to vocab.json with merges.txt (byte-level BPE), to vocab.txt (WordPiece), to a
    SentencePiece .model. The rest, such as lowercasing, is read from tokenizer_config.json as transformers does. Without it
    a vocab.txt is cased when some token has an upper-case letter, and a .model is read as SentencePiece itself does.
    Errors: FileNotFoundError or ValueError naming the file and what is wrong or missing.
    """
    location = Path(path)
    if not location.exists():
        location = download(path)
    if location.is_file():
        return _load_file(location, {})
    for name in _VOCABULARIES:
        if (location / name).is_file():
            return _load_file(location / name, read_configuration(location))
    raise FileNotFoundError(
        f"'{path}' has no {', '.join(_VOCABULARIES[:-1])} or {_VOCABULARIES[-1]}. Give a folder or hub name with one of them"
    )


def vocabulary_fingerprint(path: str | Path) -> str | None:
    """`Tokenizer.fingerprint` of a folder's tokenizer, or None when the folder has no tokenizer files."""
    folder = Path(path)
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return None
    return load_tokenizer(str(folder)).fingerprint


def _load_file(file: Path, config: dict[str, Any]) -> Tokenizer:
    names = special_names(config)
    try:
        if file.suffix == ".model":
            return _load_sentence_piece(file, names, config)
        if file.name == "vocab.json":
            return _load_byte_level(file, names, config)
        if file.suffix == ".json":
            tokenizer = BackendTokenizer(Backend.from_file(str(file)), names, str(file))
            tokenizer.encode_batch([_PROBE])
            return tokenizer
        return _load_wordpiece(file, names, config)
    except (ValueError, OSError):
        raise
    except BaseException as error:  # `tokenizers` raises bare Exception for a file that it cannot parse, or panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        wanted = "Give a tokenizer.json, a vocab.json with merges.txt, a vocab.txt or a SentencePiece .model"
        raise ValueError(f"'{file}' is not a tokenizer ({error}). {wanted}") from error


def _load_wordpiece(file: Path, names: dict[str, str], config: dict[str, Any]) -> Tokenizer:
    vocabulary = read_vocabulary(file)
    special = set(names.values()) | {choices[0] for choices in SPECIAL_NAMES.values()}
    cased = any(
        token != token.lower() for token in vocabulary if token not in special and not token.startswith("[unused")
    )
    return wordpiece(vocabulary, names, {"do_lower_case": not cased} | config, str(file))


def _load_byte_level(file: Path, names: dict[str, str], config: dict[str, Any]) -> Tokenizer:
    merges = file.with_name("merges.txt")
    if not merges.is_file():
        raise FileNotFoundError(f"'{file}' has no merges.txt beside it, which byte-level BPE needs. Copy it there")
    vocabulary = read_vocabulary_json(file)
    return byte_level_bpe(vocabulary, read_merges(merges, vocabulary), names, config, str(file))


def _load_sentence_piece(file: Path, names: dict[str, str], config: dict[str, Any]) -> Tokenizer:
    try:  # only here: no other kind needs sentencepiece, nor the version of protobuf that it was built with
        from data.tokenizer.sentence_piece import SentencePieceTokenizer, family_of
    except Exception as error:  # ImportError, or protobuf's own for a version that does not fit
        raise ValueError(
            f"'{file}' needs the packages sentencepiece and protobuf ({error}). pip install --upgrade sentencepiece protobuf"
        ) from error
    return SentencePieceTokenizer(file.read_bytes(), family_of(_class_name(file, config)), names, config, str(file))


def _class_name(file: Path, config: dict[str, Any]) -> str:
    """Whose tokenizer a .model is: what the configuration says, or else the model's own."""
    if "tokenizer_class" in config:
        return str(config["tokenizer_class"])
    model = file.with_name("config.json")
    return str(read_object(model).get("model_type")) if model.is_file() else ""
