"""What a checkpoint consists of, and whether it still does: names, sizes and sha256 of its files, and of the list itself."""

import hashlib
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.files import FileFacts, read_facts, write_json

VERSION = 1
NAME = "manifest.json"
STATE = "state.json"
_FILE_NAMES = re.compile(r"state\.json|rank_[0-9]{3,6}\.safetensors")
_LARGEST_MANIFEST = 1 << 26  # bytes; 65,536 ranks need 10 MB


class DamagedError(ValueError):
    """A checkpoint that must not be loaded; the message names the file and the reason."""


@dataclass(frozen=True)
class Manifest:
    update: int
    num_ranks: int
    files: dict[str, FileFacts]


def rank_file(rank: int) -> str:
    return f"rank_{rank:03d}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Errors: OSError."""
    record = {
        "version": VERSION,
        "update": manifest.update,
        "num_ranks": manifest.num_ranks,
        "files": {name: {"size": facts.size, "sha256": facts.sha256} for name, facts in sorted(manifest.files.items())},
    }
    write_json(folder / NAME, record | {"sha256": _checksum(record)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder; believed only if every byte of it is as it was written.

    Errors: DamagedError.
    """
    path = folder / NAME
    check_regular(path)
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes: no manifest is that large")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not valid JSON ({error})") from None
    return parse_manifest(record, str(path))


def parse_manifest(record: Any, where: str) -> Manifest:
    """Errors: DamagedError naming `where` and the field."""
    if not isinstance(record, dict) or type(record.get("version")) is not int or record["version"] != VERSION:
        raise DamagedError(f"{where}: not a manifest of version {VERSION}")
    checksum = record.pop("sha256", None)
    if checksum != _checksum(record):
        raise DamagedError(f"{where}: its contents do not match its own sha256: it was changed or damaged")
    update, num_ranks, listed = record.get("update"), record.get("num_ranks"), record.get("files")
    if type(update) is not int or type(num_ranks) is not int or not isinstance(listed, dict):
        raise DamagedError(f"{where}: update, num_ranks or files is missing")
    if not 0 <= update < 2**62 or num_ranks != len(listed) - 1 or num_ranks < 1:
        raise DamagedError(f"{where}: update {update} of {num_ranks} ranks with {len(listed)} files is none of ours")
    files = {}
    for name, facts in listed.items():
        # A name decides which file is opened: nothing that could leave the folder is one.
        if not _FILE_NAMES.fullmatch(name):
            raise DamagedError(f"{where}: {name!r} is no file of a checkpoint")
        if not isinstance(facts, dict) or type(facts.get("size")) is not int or type(facts.get("sha256")) is not str:
            raise DamagedError(f"{where}: {name} needs a size and a sha256")
        files[name] = FileFacts(facts["size"], facts["sha256"])
    expected = {STATE, *(rank_file(rank) for rank in range(num_ranks))}
    if files.keys() != expected:
        raise DamagedError(f"{where}: lists {sorted(files)}, expected {sorted(expected)}")
    return Manifest(update, num_ranks, files)


def check_file(folder: Path, name: str, expected: FileFacts) -> None:
    """
    Errors: DamagedError where the file is absent, a link, cut short or changed.
    """
    path = folder / name
    check_regular(path)
    size = path.stat().st_size
    if size != expected.size:
        raise DamagedError(f"{path} has {size} bytes, the manifest says {expected.size}")
    try:
        found = read_facts(path)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error})") from None
    if found != expected:
        raise DamagedError(f"{path} was changed: its sha256 is {found.sha256}, the manifest says {expected.sha256}")


def check_regular(path: Path) -> None:
    """
    Errors: DamagedError where `path` is absent, a link or anything but a file.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise DamagedError(f"{path} is missing ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise DamagedError(f"{path} is a link or no regular file")


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
