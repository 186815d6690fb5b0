"""Counter-based random bits for dropout in fused kernels (Salmon et al. 2011): nothing is stored, everything recomputed.

Element i of a contiguous tensor belongs to group i // 8. Philox4x32-10 with the group as counter and the seed as key gives
four words, eight halves of 16 bits; half i % 8 decides the element, low half of a word first. Every kernel, on any device
and in any language, draws the same mask from the same seed. This is the plain reference.
"""

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = 0xFFFFFFFF


def draw_seed() -> int:
    """A seed of 62 bits from torch's default generator on the CPU: saved and restored with it, no device is asked."""
    return int(torch.randint(2**62, ()).item())


def draw_seed_on(device: torch.device) -> Tensor:
    """(1,) int64, 62 bits from the generator of `device`, which a run saves and restores; the host never learns it."""
    return torch.randint(2**62, (1,), device=device)


def drop_below(probability: float) -> int:
    """An element is dropped if its 16 bits are below this: probabilities are multiples of 1/65536."""
    return min(round(probability * 65536), 65535)


def philox(counter: Tensor, seed: int) -> Tensor:
    """counter (n,) int64 -> (n, 4) int64, four words of 32 bits each."""
    words = [counter & _LOW, counter >> 32, torch.zeros_like(counter), torch.zeros_like(counter)]
    keys = [seed & _LOW, (seed >> 32) & _LOW]
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = (_multiply(words[2 * i], MULTIPLIERS[i]) for i in range(2))
        words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
        keys = [(key + step) & _LOW for key, step in zip(keys, KEY_STEPS, strict=True)]
    return torch.stack(words, dim=1)


def philox_keep_mask(
    shape: tuple[int, ...], probability: float, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """A bool tensor, false with `probability`."""
    count = torch.Size(shape).numel()
    words = philox(torch.arange((count + 7) // 8, device=device), seed)
    halves = torch.stack([words & 0xFFFF, words >> 16], dim=2).flatten()
    return (halves[:count] >= drop_below(probability)).view(shape)


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product, in int64, which has no unsigned 64."""
    low_part, high_part = word * (multiplier & 0xFFFF), word * (multiplier >> 16)
    total = low_part + ((high_part & 0xFFFF) << 16)
    return ((high_part >> 16) + (total >> 32)) & _LOW, total & _LOW
