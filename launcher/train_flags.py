"""What train.py would make of its flags, without starting it: for whoever is about to start many runs.

    echo '[["--ds_config", "ds_configs/zero2.json", "--temperature", "4"]]' | python -m launcher.train_flags

Standard input: a JSON list of command lines. Standard output: a JSON list with, for each of them, the values of all flags
(defaults included) and the DeepSpeed JSON, or the message with which train.py would refuse it.
"""

import dataclasses
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from command_line import parse
from launcher.small_run import Flags
from training.ds_config import read_ds_config


def understand(arguments: list[str]) -> dict[str, Any]:
    """{"flags": ..., "ds_config": ...} or {"error": ...}."""
    told = io.StringIO()
    try:
        with redirect_stdout(told), redirect_stderr(told):
            flags = parse(Flags, arguments, "", prog="train.py")
    except SystemExit:
        return {"error": _message(told.getvalue())}
    try:
        # One rank, and a device that computes in every precision: what else may be wrong depends on where it will run.
        ds = read_ds_config(flags.run.ds_config, num_ranks=1, device_type="cuda")
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    values = {name: value for group in dataclasses.asdict(flags).values() for name, value in group.items()}
    return {"flags": values, "ds_config": ds.raw}


def _message(told: str) -> str:
    """The reason alone, out of a title, a reason, a suggestion and more, with rules between them as tyro prints them."""
    blocks: list[list[str]] = [[]]
    for line in map(str.strip, told.splitlines()):
        if line and not line.strip("-"):
            blocks.append([])
        elif line:
            blocks[-1].append(line)
    if len(blocks) < 3:
        return " ".join(line for block in blocks for line in block)
    suggestion = f" (perhaps you meant {blocks[2][1]})" if blocks[2][:1] == ["Perhaps you meant:"] else ""
    return " ".join(blocks[1]) + suggestion


if __name__ == "__main__":
    os.environ["COLUMNS"] = "1000"  # the frame's width, so that it breaks no line
    json.dump([understand(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
