"""Several prunings of one model side by side.

python -m pruning.table heads=runs/pruned/heads layers=runs/pruned/layers --append bench/RESULTS.md
"""

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from command_line import parse
from evaluation.sections import append_section, named, table


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which prunings, and where the table goes."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """Outputs of prune.py, each as NAME=FOLDER or FOLDER."""
    append: str = ""
    """Markdown file to add the table to, with its commands, hardware and date."""

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("name at least one folder that prune.py wrote")


def main(config: TableConfig, command: str) -> int:
    """Exit code 2 and one line for input that does not fit."""
    try:
        section = section_of(read(config.folders), command)
        if config.append:
            append_section(Path(config.append), section)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(section, end="")
    return 0


def read(folders: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """pruning.json by name. Errors: FileNotFoundError, or ValueError for files of others or of several models."""
    from model.config import read_json
    from pruning.subject import PRUNING

    found: dict[str, dict[str, Any]] = {}
    for given in folders:
        name, folder = named(given)
        path = Path(folder) / PRUNING
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {PRUNING}. Give folders that prune.py wrote")
        content = read_json(path)
        if not {"model", "before", "after", "speed", "measured", "command"} <= content.keys():
            raise ValueError(f"{path} is no report of prune.py. Prune again")
        first = next(iter(found.values()), content)
        if name in found:
            raise ValueError(f"{given}: there is a {name!r} already. Give each its own name: NAME=FOLDER")
        if (content["model"], content["task"]) != (first["model"], first["task"]):
            raise ValueError(
                f"{folder} is pruned from {content['model']}, others from {first['model']}: one model a table"
            )
        found[name] = content
    return found


def section_of(contents: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """Markdown."""
    from pruning.report import EXPLAINED, rows_of, sweep_of

    first = next(iter(contents.values()))
    lines = [
        f"## {time.strftime('%Y-%m-%d %H:%M')}: {first['model']} pruned, {', '.join(contents)}",
        "",
        f"    {command}",
        *(f"    {content['command']}" for content in contents.values()),
        "",
        f"{first['hardware']}. torch {first['torch']}, transformers {first['transformers']}. Nothing was trained "
        "afterwards.",
        "",
        *table(*rows_of(contents)),
        "",
        f"- {EXPLAINED}",
        "- Each row was timed in a run of its own, beside the model before: ms of two rows do not compare, their speeds do.",
        *(f"- {name}: measured on {content['measured']}." for name, content in contents.items()),
    ]
    for name, content in contents.items():
        if content["tried"]:
            lines += ["", f"Other shares of heads, with the layers of {name} and the whole vocabulary:", ""]
            lines += sweep_of(content["tried"])
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    sys.exit(main(parse(TableConfig, ARGUMENTS, __doc__ or ""), f"python -m pruning.table {shlex.join(ARGUMENTS)}"))
