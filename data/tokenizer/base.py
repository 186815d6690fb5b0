"""The protocol that all tokenizers share, and what they share of its implementation."""

import abc
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.tokenizer.words import WordMemory

# The names of BERT and of RoBERTa, looked for when the folder's configuration does not say.
SPECIAL_NAMES = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
}


class Tokenizer(abc.ABC):
    """Texts to token ids and back. Get one from `load_tokenizer` or `train_tokenizer`; it may be pickled.

    vocab_size, cls_id, sep_id, mask_id, pad_id, unk_id; special_ids: all tokens that are no text; special_names: their names
    by role; fingerprint: sha256 of the vocabulary in id order and of what else decides how a word is taken apart (merges,
    scores), the same for every kind of file that holds the same vocabulary.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        special_names: dict[str, str],
        other_special_ids: Iterable[int],
        rules: Iterable[str],
        origin: str,
    ) -> None:
        self._origin = origin
        self.special_names = {role: _special_name(vocabulary, special_names, role, origin) for role in SPECIAL_NAMES}
        ids = {role: vocabulary[name] for role, name in self.special_names.items()}
        self.cls_id, self.sep_id, self.mask_id = ids["cls_token"], ids["sep_token"], ids["mask_token"]
        self.pad_id, self.unk_id = ids["pad_token"], ids["unk_token"]
        self.special_ids = frozenset(ids.values()) | frozenset(other_special_ids)
        self.vocab_size = max(vocabulary.values()) + 1  # not its length: ids may have gaps
        if self.vocab_size >= 2**31:
            raise ValueError(f"'{origin}' has a token of id {self.vocab_size - 1}: ids are stored as int32")
        self.fingerprint = _fingerprint(vocabulary, rules)
        self._words: WordMemory | None = None  # made when the first text is encoded

    def __getstate__(self) -> dict[str, Any]:
        """Without the words that were read so far, which every process finds for itself."""
        return self.__dict__ | {"_words": None}

    def _encode(self, texts: list[str]) -> list[bytes]:
        if self._words is None:
            self._words = self._memory()
        return self._words.encode(texts)

    @abc.abstractmethod
    def _memory(self) -> WordMemory:
        """How this tokenizer cuts texts and encodes words."""

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        """Token ids of each text, (N,) int32: no special tokens added, nothing truncated or padded."""
        return [np.frombuffer(bytearray(ids), dtype=np.int32) for ids in self._encode(texts)]

    def encode_packed(self, texts: list[str], dtype: np.dtype) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
        """The texts' token ids end to end (N,), of `dtype`, and how many each text has (len(texts),); as encode_batch."""
        encoded = self._encode(texts)
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64) // np.dtype(np.int32).itemsize
        return np.frombuffer(bytearray().join(encoded), dtype=np.int32).astype(dtype, copy=False), lengths

    @abc.abstractmethod
    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids, special tokens included."""

    @abc.abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the vocabulary and the configuration from which transformers' AutoTokenizer loads the same tokenizer."""

    def _write_configuration(self, folder: Path, settings: dict[str, Any]) -> None:
        for name, record in (
            ("tokenizer_config.json", self.special_names | settings),
            ("special_tokens_map.json", self.special_names),
        ):
            (folder / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _special_name(vocabulary: dict[str, int], names: dict[str, str], role: str, origin: str) -> str:
    candidates = (names[role],) if role in names else SPECIAL_NAMES[role]
    for name in candidates:
        if name in vocabulary:
            return name
    raise ValueError(
        f"'{origin}' has no {role} ({' or '.join(candidates)}), which masked language modelling needs. Use another tokenizer"
    )


def _fingerprint(vocabulary: dict[str, int], rules: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        digest.update(f"{number}\t{token}\n".encode())
    for rule in rules:
        digest.update(f"{rule}\n".encode())
    return digest.hexdigest()
