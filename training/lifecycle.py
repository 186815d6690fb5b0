"""How a process ends: every way has its own exit code, so that a batch script can tell them apart."""

from enum import IntEnum


class ExitCode(IntEnum):
    FINISHED = 0
    """All updates done, student written."""
    FAILED = 1
    """An error of ours or of the machine; the traceback says which."""
    BAD_INPUT = 2
    """A flag, file, corpus or model that cannot be used; one message says what to do."""
    DIVERGED = 3
    """Loss or gradients are no longer finite; checkpoints from before are kept."""


class DivergedError(Exception):
    """Training produced NaN or infinity; the message names the update."""
