"""PREFIX.json: what a prepared corpus is made of, written last, so that its presence means the corpus is complete."""

import dataclasses
import json
import os
import reprlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import numpy as np
import numpy.typing as npt

from data.tokenizer import TOKENIZER_FILES, Tokenizer, load_tokenizer
from folders import sha256

VERSION = 1
PARTS = ("all", "train", "heldout")
_LARGEST = 1 << 26  # bytes: a million names of input files
_DAMAGED = "Copy or prepare the corpus again"


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """What training must know of the tokenizer without loading it."""

    fingerprint: str
    vocab_size: int
    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    unk_id: int
    special_ids: list[int]
    files: str
    """Folder with the tokenizer's files, beside PREFIX.json."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Size in bytes and sha256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """Which side of a split by document hash a corpus is, so that what is held out can never be trained on."""

    part: str = "all"
    """all: not split; train: without the held-out documents; heldout: only those."""
    share: float = 0.0
    """Share of the documents that is held out; 0 where nothing was split."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The contents of PREFIX.json; see DESIGN section 8."""

    version: int
    tokenizer: TokenizerFacts
    documents: int
    tokens: int
    dropped: dict[str, int]
    dtype: str
    bin: FileFacts
    idx: FileFacts
    inputs: list[str]
    """Base names of the files that the corpus was made from."""
    split: SplitFacts


def sidecar_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.json")


def read_sidecar(prefix: str | Path) -> Sidecar | None:
    """PREFIX.json, or None where there is none. Errors: ValueError naming the file and the field."""
    path = sidecar_path(prefix)
    if not path.is_file():
        return None
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {_LARGEST}: {_DAMAGED}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Prepare the corpus again") from error
    if not isinstance(record, dict) or record.get("version") != VERSION:
        found = record.get("version") if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{path}: version is {reprlib.repr(found)}, only {VERSION} is known. Prepare the corpus again")
    parts = {"tokenizer": TokenizerFacts, "bin": FileFacts, "idx": FileFacts, "split": SplitFacts}
    for field, kind in parts.items():
        record[field] = _build(kind, record.get(field), path, f"{field}.")
    sidecar: Sidecar = _build(Sidecar, record, path, "")
    _check_tokenizer(sidecar.tokenizer, path)
    _check_split(sidecar.split, path)
    return sidecar


def load_own_tokenizer(prefix: str | Path, facts: TokenizerFacts) -> Tokenizer:
    """The tokenizer beside a corpus, which must be the one that PREFIX.json describes. Errors: ValueError, OSError.

    Its files are plain ones inside the corpus's folder: a link would let a corpus name any file of the machine.
    """
    folder = Path(prefix).parent / facts.files
    for path in (folder, *(folder / name for name in TOKENIZER_FILES)):
        if path.is_symlink() or (path != folder and path.exists() and not path.is_file()):
            raise ValueError(f"{path} is a link or no plain file, which a corpus must not have. {_DAMAGED}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}, the tokenizer that {prefix}.json names, is missing. {_DAMAGED}")
    tokenizer = load_tokenizer(str(folder))
    for field in dataclasses.fields(facts):
        if field.name == "files":
            continue
        expected, found = getattr(facts, field.name), getattr(tokenizer, field.name)
        if (sorted(found) if field.name == "special_ids" else found) != expected:
            raise ValueError(
                f"{folder}: {field.name} is {reprlib.repr(found)}, but {prefix}.json says {reprlib.repr(expected)}: the "
                f"tokenizer of another corpus? {_DAMAGED}"
            )
    return tokenizer


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a repeated key would hide one of its values."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key occurs twice in an object")
    return record


def _build(kind: type, record: Any, path: Path, where: str) -> Any:
    """A dataclass from a JSON object, with every field present and of its kind of value."""
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}: {where.rstrip('.')} is {reprlib.repr(record)}, not an object. Prepare the corpus again"
        )
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in record:
            raise ValueError(f"{path}: {where}{field.name} is missing. Prepare the corpus again")
        value = values[field.name] = record[field.name]
        if not _is_a(value, field.type):
            wanted = field.type.__name__ if isinstance(field.type, type) else field.type
            raise ValueError(f"{path}: {where}{field.name} is {reprlib.repr(value)}, not {wanted}. {_DAMAGED}")
    return kind(**values)


def _is_a(value: Any, kind: Any) -> bool:
    """Is a JSON value of a field's type: int, str, a dataclass, or a list or dict of those? True is no int here."""
    if get_origin(kind) is list:
        return type(value) is list and all(_is_a(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return type(value) is dict and all(_is_a(item, get_args(kind)[1]) for item in value.values())
    return type(value) is kind


def _check_tokenizer(facts: TokenizerFacts, path: Path) -> None:
    """Ids within the vocabulary, and a folder beside the corpus. Errors: ValueError."""

    def refuse(field: str, reason: str) -> NoReturn:
        raise ValueError(f"{path}: tokenizer.{field} is {reprlib.repr(getattr(facts, field))}: {reason}. {_DAMAGED}")

    if not 1 <= facts.vocab_size < 2**31:
        refuse("vocab_size", "token ids are int32")
    special = set(facts.special_ids)
    if len(special) != len(facts.special_ids) or not all(0 <= token < facts.vocab_size for token in special):
        refuse("special_ids", f"they must be different ids within the vocabulary [0, {facts.vocab_size})")
    if len(special) == facts.vocab_size:
        refuse("special_ids", "no token is left for text")
    for field in ("cls_id", "sep_id", "mask_id", "pad_id", "unk_id"):
        if getattr(facts, field) not in special:
            refuse(field, "it is not among special_ids")
    if len({facts.cls_id, facts.sep_id, facts.mask_id}) < 3:
        refuse("mask_id", f"[CLS] {facts.cls_id}, [SEP] {facts.sep_id} and [MASK] must be three tokens")
    # One name, not a path, and printable: no "..", no separator, no NUL, no half of a surrogate pair.
    if facts.files in ("", ".", "..") or "/" in facts.files or not facts.files.isprintable():
        refuse("files", "it must be the name of a folder beside the corpus")


def _check_split(split: SplitFacts, path: Path) -> None:
    if split.part not in PARTS or not 0.0 <= split.share < 1.0 or (split.share == 0.0) != (split.part == "all"):
        raise ValueError(
            f"{path}: split is part {split.part!r} of share {split.share!r}; {', '.join(PARTS)} with a share in (0, 1) "
            f"are known. {_DAMAGED}"
        )


def save_beside(prefix: str | Path, tokenizer: Tokenizer, token_counts: npt.NDArray[np.int64]) -> TokenizerFacts:
    """Write PREFIX.tokenizer/ and PREFIX.token_counts.npy; what PREFIX.json is to say of the tokenizer. Errors: OSError."""
    folder = Path(f"{prefix}.tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save(folder)
    np.save(f"{prefix}.token_counts.npy", token_counts)
    return TokenizerFacts(
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.mask_id,
        pad_id=tokenizer.pad_id,
        unk_id=tokenizer.unk_id,
        special_ids=sorted(tokenizer.special_ids),
        files=folder.name,
    )


def write_sidecar(prefix: str | Path, sidecar: Sidecar) -> None:
    """Write PREFIX.json atomically: a reader sees the whole of it or nothing."""
    path = sidecar_path(prefix)
    partial = Path(f"{path}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(sidecar), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def file_facts(path: Path) -> FileFacts:
    """Size and sha256 of a file, read in blocks."""
    return FileFacts(size=path.stat().st_size, sha256=sha256(path))
