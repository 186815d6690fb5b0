"""PREFIX.json: what a prepared corpus is made of, written last, so that its presence means the corpus is complete."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1


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


def sidecar_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.json")


def read_sidecar(prefix: str | Path) -> Sidecar | None:
    """PREFIX.json, or None where there is none. Errors: ValueError naming the file and the field."""
    path = sidecar_path(prefix)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Prepare the corpus again") from error
    if not isinstance(record, dict) or record.get("version") != VERSION:
        found = record.get("version") if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{path}: version is {found}, only {VERSION} is known. Prepare the corpus again")
    parts = {"tokenizer": TokenizerFacts, "bin": FileFacts, "idx": FileFacts}
    for field, kind in parts.items():
        record[field] = _build(kind, record.get(field), path, f"{field}.")
    sidecar: Sidecar = _build(Sidecar, record, path, "")
    return sidecar


def _build(kind: type, record: Any, path: Path, where: str) -> Any:
    """A dataclass from a JSON object, with every field present and of its kind of value."""
    if not isinstance(record, dict):
        raise ValueError(f"{path}: {where.rstrip('.')} is {record!r}, not an object. Prepare the corpus again")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in record:
            raise ValueError(f"{path}: {where}{field.name} is missing. Prepare the corpus again")
        value = values[field.name] = record[field.name]
        if isinstance(field.type, type) and field.type in (int, str) and type(value) is not field.type:
            raise ValueError(
                f"{path}: {where}{field.name} is {value!r}, not {field.type.__name__}. Prepare the corpus again"
            )
    return kind(**values)


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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return FileFacts(size=path.stat().st_size, sha256=digest.hexdigest())
