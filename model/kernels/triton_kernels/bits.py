"""Dropout bits inside a kernel, those of model/kernels/philox.py, and what every launch needs."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _words(seed, groups):
    """The four words of 32 bits of each group."""
    zero = tl.zeros_like(groups).to(tl.uint32)
    return tl.philox(seed, groups.to(tl.uint32), (groups >> 32).to(tl.uint32), zero, zero)


@triton.jit
def keep_tile(seed, row_starts, drop_below, BLOCK: tl.constexpr, GROUPED: tl.constexpr):
    """(R, BLOCK) true where an element is kept; row_starts (R,) int64, the place of each row's first element.

    GROUPED: every row starts a group of eight, so that one draw serves eight neighbours; otherwise every element draws
    its group anew and picks its half, eight times the work for the same bits.
    """
    if GROUPED:
        groups = (row_starts >> 3)[:, None] + tl.arange(0, BLOCK // 8)[None, :]
        first, second, third, fourth = _words(seed, groups)
        # The axis joined first varies slowest: half = 4 * a + 2 * b + c of word 2 * a + b.
        low = tl.join(tl.join(first & 0xFFFF, third & 0xFFFF), tl.join(second & 0xFFFF, fourth & 0xFFFF))
        high = tl.join(tl.join(first >> 16, third >> 16), tl.join(second >> 16, fourth >> 16))
        halves = tl.reshape(tl.join(low, high), (row_starts.shape[0], BLOCK))
    else:
        places = row_starts[:, None] + tl.arange(0, BLOCK)[None, :]
        first, second, third, fourth = _words(seed, places >> 3)
        half = (places & 7).to(tl.uint32)
        word = tl.where(half < 4, tl.where(half < 2, first, second), tl.where(half < 6, third, fourth))
        halves = (word >> ((half & 1) * 16)) & 0xFFFF
    return halves.to(tl.int32) >= drop_below


def rows_are_grouped(width: int) -> bool:
    """Whether every row of a contiguous (rows, width) tensor starts a group of eight elements."""
    return width % 8 == 0


def num_programs(device: torch.device, per_multiprocessor: int) -> int:
    """Programs that fill the device where each works through many rows."""
    if device.type != "cuda":
        return 3  # the interpreter: few, but more than one, so that partial sums are summed
    return per_multiprocessor * torch.cuda.get_device_properties(device).multi_processor_count


def seed_or_placeholder(seed: Tensor | None, other: Tensor) -> Tensor:
    """A kernel wants a pointer even for what it will not read."""
    return other if seed is None else seed
