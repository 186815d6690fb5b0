"""Micro-batches on their way to the device while it computes."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import torch

B = TypeVar("B", bound="Movable")


class Movable(Protocol):
    """What training needs to know of a batch."""

    def to(self: B, device: torch.device) -> B: ...

    def tensors(self) -> Iterable[torch.Tensor]: ...


def on_device(batches: Iterable[B], device: torch.device) -> Iterator[B]:
    """The batches on the device, in order, the next one being copied while this one is computed with.

    On a CPU they are yielded as they are. On CUDA they are copied on a stream of their own, from page-locked memory, so
    neither host nor device waits for it: the stream that computes is only held back until the copy that it needs is done.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    ahead: tuple[B, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = batch.to(device), copying.record_event()
        if ahead is not None:
            yield _hand_over(*ahead)
        ahead = copied
    if ahead is not None:
        yield _hand_over(*ahead)


def _hand_over(batch: B, is_copied: torch.cuda.Event) -> B:
    computing = torch.cuda.current_stream()
    computing.wait_event(is_copied)
    for tensor in batch.tensors():
        # Its memory belongs to the copying stream, which must not reuse it before computing is done with it.
        tensor.record_stream(computing)
    return batch
