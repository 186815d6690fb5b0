"""Which checkpoint a run can be continued from: the newest whose every byte is as it was written."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.distributed import Ranks, from_first, gather_objects
from training.manifest import STATE, DamagedError, Manifest, check_file, read_manifest

_FOLDER = re.compile(r"update-([0-9]{8,})")


def checkpoint_folders(folder: Path) -> list[Path]:
    """Folders of committed checkpoints, newest first. Errors: OSError."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)]
    return sorted(found, key=update_of, reverse=True)


def update_of(path: Path) -> int:
    return int(path.name.removeprefix("update-"))


@dataclass(frozen=True)
class Verified:
    """A checkpoint whose every byte is as it was written."""

    folder: Path
    manifest: Manifest
    state: dict[str, Any]


def find_checkpoint(folder: Path, ranks: Ranks, say: Callable[[str], None]) -> Verified | None:
    """Together: the newest checkpoint that verifies, or None where none was ever committed. Rank 0 looks, all ranks read.

    Errors: ValueError where there are checkpoints and none verifies; `say` told why each was skipped.
    """
    names, problem = from_first(ranks, _list_names(folder) if ranks.is_first else ([], ""))
    if problem:
        raise ValueError(f"--resume: {folder} cannot be read: {problem}")
    for name in names:
        candidate, problem = _verify(folder / name, ranks)
        if candidate is not None:
            return candidate
        say(f"warning: checkpoint {name} is skipped: {problem}")
    if names:
        raise ValueError(
            f"--resume: none of the {len(names)} checkpoints in {folder} is intact. Restore one from a copy, or start "
            "without --resume into a new --output"
        )
    return None


def _list_names(folder: Path) -> tuple[list[str], str]:
    try:
        return [path.name for path in checkpoint_folders(folder)], ""
    except OSError as error:
        return [], str(error)


def _verify(path: Path, ranks: Ranks) -> tuple[Verified | None, str]:
    """Every rank checks its share of the files; the verdict is the same on all of them."""
    manifest, problem = None, ""
    if ranks.is_first:
        try:
            manifest = read_manifest(path)
            if path.is_symlink() or path.name != f"update-{manifest.update:08d}":
                raise DamagedError(f"{path} is a link, or its manifest belongs to update {manifest.update}")
        except (OSError, DamagedError) as error:
            problem = str(error)
    manifest, problem = from_first(ranks, (manifest, problem))
    if manifest is None:
        return None, problem
    try:
        for name in sorted(manifest.files)[ranks.rank :: ranks.num_ranks]:
            check_file(path, name, manifest.files[name])
        state = json.loads((path / STATE).read_bytes())
    except (OSError, ValueError, DamagedError) as error:
        problem = str(error)
    problems = [text for text in gather_objects(ranks, problem) if text]
    if problems:
        return None, "; ".join(problems[:3])
    return Verified(path, manifest, state), ""


def check_identity(checkpoint: Verified, identity: dict[str, Any]) -> None:
    """
    Errors: ValueError where the checkpoint belongs to another run: resumed, it would not be the same run.
    """
    saved = checkpoint.state["identity"]
    wanted = json.loads(json.dumps(identity))  # as it looks after being saved
    changed = [
        f"{name} was {saved.get(name)!r} and is {wanted.get(name)!r}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if changed:
        raise ValueError(f"--resume: {checkpoint.folder} belongs to another run: {'; '.join(changed)}")
