"""A manifest that is believed only as it was written, and never leads out of its folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from training.files import read_facts, write_blocks
from training.manifest import DamagedError, Manifest, check_file, parse_manifest, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("state.json", "rank_000.safetensors", "rank_001.safetensors")
    facts = {name: write_blocks(tmp_path / name, [name.encode() * 100]) for name in names}
    write_manifest(tmp_path, Manifest(7, 2, facts))
    return tmp_path


def test_round_trip(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest.update, manifest.num_ranks) == (7, 2)
    for name, facts in manifest.files.items():
        check_file(folder, name, facts)
        assert facts == read_facts(folder / name)


def test_every_flipped_bit_of_a_manifest_shows(folder: Path) -> None:
    path = folder / "manifest.json"
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        path.write_bytes(bad)
        try:
            manifest = read_manifest(folder)
        except DamagedError:
            continue
        path.write_bytes(good)
        assert manifest == read_manifest(folder), position  # white space, or 1 against 1.0: it says the same


def test_a_truncated_manifest_shows(folder: Path) -> None:
    path = folder / "manifest.json"
    good = path.read_bytes()
    for length in range(len(good) - 2):
        path.write_bytes(good[:length])
        with pytest.raises(DamagedError, match="manifest"):
            read_manifest(folder)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer", "missing", "link", "folder"])
def test_every_damage_of_a_file_shows(folder: Path, damage: str) -> None:
    name = "rank_001.safetensors"
    path, facts = folder / name, read_manifest(folder).files[name]
    good = path.read_bytes()
    if damage in ("missing", "link", "folder"):
        path.unlink()
    match damage:
        case "truncated":
            path.write_bytes(good[:-1])
        case "flipped":
            path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        case "longer":
            path.write_bytes(good + b"\0")
        case "link":
            (folder.parent / "elsewhere").write_bytes(good)
            path.symlink_to(folder.parent / "elsewhere")
        case "folder":
            path.mkdir()
    with pytest.raises(DamagedError, match=name):
        check_file(folder, name, facts)


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """What somebody who knows the format would write."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return record | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


FACTS = {"size": 1, "sha256": "0"}


@pytest.mark.parametrize(
    "files",
    [
        {"../../etc/passwd": FACTS},
        {"/etc/passwd": FACTS},
        {"rank_000.safetensors/../x": FACTS},
        {"rank_000.pt": FACTS},
        {"rank_000.safetensors\n": FACTS},
        {"rank_000.safetensors": FACTS},  # without the state
        {"state.json": FACTS, "rank_000.safetensors": {"size": "1", "sha256": "0"}},
        {"state.json": FACTS, "rank_000.safetensors": FACTS, "rank_001.safetensors": FACTS},
        [],
    ],
)
def test_a_well_signed_manifest_may_still_not_name_what_it_likes(files: Any) -> None:
    with pytest.raises(DamagedError):
        parse_manifest(signed({"version": 1, "update": 3, "num_ranks": 1, "files": files}), "here")


@pytest.mark.parametrize("field", ["update", "num_ranks", "version"])
@pytest.mark.parametrize("value", [None, "1", 1.5, True, -1, 10**30, []])
def test_numbers_of_another_kind_are_refused(field: str, value: Any) -> None:
    record = {"version": 1, "update": 3, "num_ranks": 1} | {field: value}
    with pytest.raises(DamagedError):
        parse_manifest(signed(record | {"files": {"state.json": FACTS, "rank_000.safetensors": FACTS}}), "here")
