"""How a process ends: every way has its own exit code, so that a batch script can tell them apart."""

from enum import IntEnum


class ExitCode(IntEnum):
    FINISHED = 0
    """All updates done, student written."""
    FAILED = 1
    """An error of ours or of the machine; the traceback says which. Also: a rank died, or lost contact with another."""
    BAD_INPUT = 2
    """A flag, file, corpus or model that cannot be used, or a run folder in use; one message says what to do."""
    DIVERGED = 3
    """Loss or gradients are no longer finite; checkpoints from before are kept."""
    SAVE_FAILED = 4
    """Checkpoints could not be written, repeatedly; the last complete one is kept."""
    CRASH_LOOP = 5
    """The same update failed several times in a row, over restarts; starting again would fail again."""
    HANG = 6
    """A rank made no progress for --hang_timeout; the stacks of all ranks are in the run folder."""
    MAPPED_FILE_LOST = 7
    """SIGBUS: a file was cut short, or its disk failed, under its memory map."""
    RANKS_DISAGREE = 8
    """Weights differ between ranks, which compute the same thing: a machine computes wrongly."""
    PREEMPTED = 75
    """Stopped by a signal or --stop_after, and saved: start it again with --resume. (EX_TEMPFAIL of sysexits.h.)"""
    INTERRUPTED = 130
    """A second SIGINT: stopped at once, nothing saved."""


class DivergedError(Exception):
    """Training produced NaN or infinity; the message names the update."""
