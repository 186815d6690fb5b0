"""Runs train.py's main for each [arguments, message] of a JSON file and checks that it refuses with that message."""

import contextlib
import io
import json
import sys
from pathlib import Path

import train
from command_line import parse
from training.distributed import leave_ranks
from training.lifecycle import ExitCode, StopRequest, leave_now

STOP = StopRequest()

for arguments, message in json.loads(Path(sys.argv[1]).read_text()):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            code = train.main(parse(train.TrainConfig, arguments, ""), STOP)
        except SystemExit as stop:
            code = stop.code
    said = errors.getvalue()
    assert code == 2, (arguments, code, said)
    assert [line for line in said.splitlines() if line.startswith("error")][-1].find(message) > 0, (message, said)
    print("as expected:", message)

leave_ranks()
leave_now(ExitCode.FINISHED)  # as train.py does: gloo aborts an interpreter that ends around its threads
