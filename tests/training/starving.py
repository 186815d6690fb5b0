"""train.py, whose rank 1 runs out of memory for real, once: in update 4 its address space is limited to what it has.

Started by any launcher in place of train.py, with its flags; STARVED names a file that is made when it happens.
"""

import os
import resource
import sys
from pathlib import Path

from training.lifecycle import StopRequest

STOP = StopRequest()
MARKER = Path(os.environ["STARVED"])
resource.setrlimit(
    resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
)  # started anew, it may eat again

import torch

import train
import trainer
from command_line import parse

losses = trainer.Trainer.losses


def starve(self: trainer.Trainer, *batch_and_window: object) -> object:
    found = losses(self, *batch_and_window)
    if self.ranks.rank == 1 and self.update == 3 and not MARKER.exists():
        MARKER.touch()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
        torch.empty(1 << 30)  # what an activation is on a machine that is full
    return found


trainer.Trainer.losses = starve
train.run_and_leave(parse(train.TrainConfig, sys.argv[1:], ""), STOP)
