"""Several runs of train.py in one process per rank, because starting DeepSpeed costs more than a toy run.

usage: torchrun ... run_many.py FILE, where FILE holds a JSON list of argument lists.
"""

import json
import sys
from pathlib import Path

import train
from command_line import parse
from training.lifecycle import StopRequest

STOP = StopRequest()

for arguments in json.loads(Path(sys.argv[1]).read_text()):
    code = train.main(parse(train.TrainConfig, arguments, ""), STOP)
    assert code == 0, (arguments, code)
