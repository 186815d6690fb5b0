"""A tokenizer from files or the hub, as the data path needs it: texts to ids, without special tokens, never cut.

The work is done by Hugging Face's `tokenizers`; this wrapper finds the files, knows the special tokens, and gives the
vocabulary a fingerprint that a corpus and a model can be compared by.
"""

import hashlib
import json
import re
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")

# The names of BERT and of RoBERTa, looked for when the folder's configuration does not say.
_SPECIAL_NAMES = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
}
_SETTINGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")  # of BERT's normalizer: true, false or null
# "name" or "owner/name", which huggingface_hub would accept; a path with more parts or a file's suffix is no such thing.
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class Tokenizer:
    """Texts to token ids and back. Get one from `load_tokenizer` or `train_wordpiece`.

    vocab_size, cls_id, sep_id, mask_id, pad_id, unk_id; special_ids: all tokens that are no text; fingerprint: sha256 of
    the vocabulary in id order, the same for a vocab.txt and a tokenizer.json of the same vocabulary.
    """

    def __init__(self, backend: Backend, special_names: dict[str, str], origin: str) -> None:
        # A tokenizer.json may carry the settings of whoever saved it; here a text is never cut or filled up.
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._origin = backend, origin
        self.special_names = {role: _special_name(backend, special_names, role, origin) for role in _SPECIAL_NAMES}
        vocabulary = backend.get_vocab(with_added_tokens=True)
        ids = {role: vocabulary[name] for role, name in self.special_names.items()}
        self.cls_id, self.sep_id, self.mask_id = ids["cls_token"], ids["sep_token"], ids["mask_token"]
        self.pad_id, self.unk_id = ids["pad_token"], ids["unk_token"]
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(ids.values()) | {number for number, token in added.items() if token.special}
        self.vocab_size = max(vocabulary.values()) + 1  # not its length: ids may have gaps
        if self.vocab_size >= 2**31:
            raise ValueError(f"'{origin}' has a token of id {self.vocab_size - 1}: ids are stored as int32")
        self.fingerprint = _fingerprint(vocabulary)

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        """Token ids of each text, (N,) int32: no special tokens added, nothing truncated or padded."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_packed(self, texts: list[str], dtype: np.dtype) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
        """The texts' token ids end to end (N,), of `dtype`, and how many each text has (len(texts),); as encode_batch."""
        encoded = self.encode_batch(texts)
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        return np.concatenate([np.empty(0, dtype=dtype), *encoded]).astype(dtype), lengths

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids, special tokens included."""
        return str(self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=False))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, vocab.txt (WordPiece) and the configuration from which transformers loads the same."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special_names}
        if isinstance(self._backend.model, models.WordPiece):
            config |= {"tokenizer_class": "BertTokenizer"} | _normalizer_settings(self._backend)
            vocabulary = self._backend.get_vocab(with_added_tokens=True)
            lines = [f"{token}\n" for token in sorted(vocabulary, key=lambda token: vocabulary[token])]
            (folder / "vocab.txt").write_text("".join(lines), encoding="utf-8", newline="")
        for name, record in (("tokenizer_config.json", config), ("special_tokens_map.json", self.special_names)):
            (folder / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer at `path`: a Hugging Face folder, a tokenizer.json, a vocab.txt, or else the name of a hub repository.

    In a folder tokenizer.json is preferred to vocab.txt. A vocab.txt is WordPiece; whether it lowercases is read from the
    folder's tokenizer_config.json, and for a bare one from its words: cased when some token has an upper-case letter.
    Errors: FileNotFoundError or ValueError naming the path and what was looked for.
    """
    location = Path(path)
    if not location.exists():
        location = _download(path)
    if location.is_file():
        return _load_file(location, {})
    config = _configuration(location)
    for name in ("tokenizer.json", "vocab.txt"):
        if (location / name).is_file():
            return _load_file(location / name, config)
    raise FileNotFoundError(
        f"'{path}' has no tokenizer.json and no vocab.txt. Give a folder or hub name with one of them"
    )


def vocabulary_fingerprint(path: str | Path) -> str | None:
    """`Tokenizer.fingerprint` of a folder's tokenizer, or None when the folder has no tokenizer files."""
    folder = Path(path)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return None
    return load_tokenizer(str(folder)).fingerprint


def wordpiece(
    vocabulary: dict[str, int], special_names: dict[str, str], settings: dict[str, Any], origin: str
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary; settings as in BERT's tokenizer_config.json."""
    names = {role: special_names.get(role, choices[0]) for role, choices in _SPECIAL_NAMES.items()}
    backend = Backend(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    # Only names the vocabulary has: adding a missing one would invent an id that no model knows.
    present = [AddedToken(name, special=True) for name in names.values() if name in vocabulary]
    backend.add_special_tokens(present)
    tokenizer = Tokenizer(backend, names, origin)
    backend.post_processor = processors.BertProcessing(
        (names["sep_token"], tokenizer.sep_id), (names["cls_token"], tokenizer.cls_id)
    )
    return tokenizer


def _load_file(file: Path, config: dict[str, Any]) -> Tokenizer:
    names = {role: _token_text(config[role]) for role in _SPECIAL_NAMES if config.get(role)}
    try:
        if file.suffix == ".json":
            return Tokenizer(Backend.from_file(str(file)), names, str(file))
        vocabulary = _read_vocabulary(file)
    except (ValueError, OSError):
        raise
    except Exception as error:  # `tokenizers` raises bare Exception for a file that it cannot parse
        raise ValueError(f"'{file}' is not a tokenizer ({error}). Give a tokenizer.json or a vocab.txt") from error
    special = set(names.values()) | {choices[0] for choices in _SPECIAL_NAMES.values()}
    cased = any(
        token != token.lower() for token in vocabulary if token not in special and not token.startswith("[unused")
    )
    return wordpiece(vocabulary, names, {"do_lower_case": not cased} | config, str(file))


def _read_vocabulary(file: Path) -> dict[str, int]:
    """Token -> id of a vocab.txt, one token a line."""
    try:
        # Not splitlines(): vocabularies contain U+2028 and its like as tokens.
        tokens = file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{file}' is not a vocabulary: not UTF-8 at byte {error.start}. Give a vocab.txt") from error
    vocabulary: dict[str, int] = {}
    for number, line in enumerate(tokens):
        token = line.rstrip("\r")
        if token in vocabulary:
            raise ValueError(
                f"'{file}', line {number + 1}: token {token!r} was already on line {vocabulary[token] + 1}"
            )
        vocabulary[token] = number
    return vocabulary


def _configuration(folder: Path) -> dict[str, Any]:
    """What special_tokens_map.json and tokenizer_config.json say; the latter wins."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            config |= _read_configuration(file)
    return config


def _read_configuration(file: Path) -> dict[str, Any]:
    """A JSON object whose entries that are used here are of the right kind."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{file}' is not a JSON object ({error}). Download or save the tokenizer again") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"'{file}' is not a JSON object ({reprlib.repr(record)}). Download or save the tokenizer again"
        )
    wrong = [name for name in _SETTINGS if not isinstance(record.get(name), bool | None)]
    # Printable: half of a surrogate pair is a str to JSON and to nobody else.
    texts = {role: _token_text(record[role]) for role in _SPECIAL_NAMES if record.get(role)}
    wrong += [role for role, text in texts.items() if not isinstance(text, str) or not text.isprintable()]
    if wrong:
        values = ", ".join(f"{name} is {reprlib.repr(record[name])}" for name in wrong)
        raise ValueError(f"'{file}': {values}, not the kind of value expected. Download or save the tokenizer again")
    return {name: value for name, value in record.items() if value is not None}  # null: the default


def _token_text(token: Any) -> Any:
    """Configurations name a token directly or as {"content": ...}."""
    return token.get("content") if isinstance(token, dict) else token


def _special_name(backend: Backend, names: dict[str, str], role: str, origin: str) -> str:
    candidates = (names[role],) if role in names else _SPECIAL_NAMES[role]
    for name in candidates:
        if backend.token_to_id(name) is not None:
            return name
    raise ValueError(
        f"'{origin}' has no {role} ({' or '.join(candidates)}), which masked language modelling needs. Use another tokenizer"
    )


def _normalizer_settings(backend: Backend) -> dict[str, Any]:
    """BERT's settings, for transformers, which rebuilds the pipeline from them."""
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "do_lower_case": normalizer.lowercase,
        "strip_accents": normalizer.strip_accents,
        "tokenize_chinese_chars": normalizer.handle_chinese_chars,
    }


def _fingerprint(vocabulary: dict[str, int]) -> str:
    digest = hashlib.sha256()
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        digest.update(f"{number}\t{token}\n".encode())
    return digest.hexdigest()


def _download(name: str) -> Path:
    """The local copy of a hub repository's tokenizer files."""
    missing = f"no tokenizer at '{name}': no such file or folder"
    if not _HUB_ID.fullmatch(name) or name.endswith((".txt", ".json")):
        raise FileNotFoundError(
            f"{missing}. Give a Hugging Face folder, a tokenizer.json, a vocab.txt or the name of a model"
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
