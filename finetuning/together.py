"""What all ranks must do alike, or none: an error that one rank meets alone would leave the others waiting for it.

The output folder is read and written by rank 0 for all: ranks on other hosts may see another one, or an older state of it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")

_KINDS: tuple[type[Exception], ...] = (FileNotFoundError, OSError, ValueError)


def everywhere(action: Callable[[], T]) -> T:
    """Together: every rank does it, without talking to others, and gets its own result.

    Errors: the ValueError or OSError of the first rank that met one, on all of them.
    """
    if not dist.is_initialized():
        return action()
    result, failure = None, None
    try:
        result = action()
    except (ValueError, OSError) as error:
        # Not the error itself: some cannot be sent.
        failure = next(kind for kind in _KINDS if isinstance(error, kind)), str(error)
    everybody: list[tuple[type[Exception], str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, failure)
    for rank, found in enumerate(everybody):
        if found is not None:
            kind, text = found
            raise kind(text if rank == 0 else f"{text} (on rank {rank})")
    return result  # type: ignore[return-value]


def on_first_rank(action: Callable[[], T]) -> T:
    """Together: rank 0 does it, and all ranks get its result, or its ValueError or OSError."""
    if not dist.is_initialized():
        return action()
    shared: list[Any] = [everywhere(action if dist.get_rank() == 0 else lambda: None)]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
