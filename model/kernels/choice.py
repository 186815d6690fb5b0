"""Which implementation of every fused operation runs, and why.

`native` is our C++ for CPUs, `triton` our kernels for GPUs, `apex` NVIDIA's, `torch` the plain operations.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from model.attention import choose_attention


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The implementation of each operation of a model, by name; the defaults run anywhere."""

    attention: str = "sdpa"
    layer_norm: str = "torch"
    activation: str = "torch"
    softmax: str = "torch"
    vocab_loss: str = "torch"


OPERATIONS = ("layer_norm", "activation", "softmax", "vocab_loss")
IMPLEMENTS = {
    # "native": here
    "triton": OPERATIONS,
    # Its softmax wants a mask of a byte for every score, and lengths that are multiples of four.
    "apex": ("layer_norm",),
}
AUTO = ("triton",)
"""By preference; native comes first. apex runs only where it is asked for: nobody has measured it against ours yet."""

COUNTER_BASED = ("triton", "native")
"""Their dropout masks come from model/kernels/philox.py, torch's own from its generator."""


def choose_kernels(
    wanted: str, wanted_attention: str, device: torch.device, dtype: torch.dtype, dropout: float
) -> tuple[Kernels, str]:
    """The kernels to run and the reason, for the line printed at the start.

    An operation that the wanted implementation does not have runs as auto would choose.

    Raises:
        ValueError: an implementation was asked for by name where it cannot run.
    """
    attention, why_attention = choose_attention(wanted_attention, device, dtype, dropout)
    obstacles = {name: _obstacle(name, device, dtype) for name in (*AUTO, wanted) if name not in ("auto", "torch")}
    if obstacles.get(wanted):
        raise ValueError(f"--kernels {wanted} cannot run: {obstacles[wanted]}. Use --kernels auto")
    order = {"auto": AUTO, "torch": ()}.get(wanted, (wanted, *AUTO))
    usable = [name for name in order if not obstacles[name]]
    chosen = {
        operation: next((name for name in usable if operation in IMPLEMENTS[name]), "torch")
        for operation in OPERATIONS
        if operation != "softmax" or attention == "softmax"  # no other attention asks for it
    }
    kernels = Kernels(attention=attention, **chosen)
    why = _why(wanted, chosen, {name: text for name, text in obstacles.items() if text})
    if dropout > 0 and kernels.layer_norm in COUNTER_BASED:
        why += ", dropout counter-based (Philox)"
    return kernels, f"attention {attention} ({why_attention}), {why}"


def runnable(operation: str, device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Every fused implementation of an operation that runs here."""
    return tuple(name for name, own in IMPLEMENTS.items() if operation in own and not _obstacle(name, device, dtype))


def _why(wanted: str, chosen: dict[str, str], obstacles: dict[str, str]) -> str:
    """Every operation under the name of what runs it, and why that."""
    parts = []
    for name in dict.fromkeys(chosen.values()):
        operations = ", ".join(operation for operation, own in chosen.items() if own == name)
        if name == wanted:
            reason = "asked for"
        elif name != "torch":
            reason = "fused" if wanted == "auto" else f"fused, {wanted} has none"
        else:
            reason = ", ".join(f"{other}: {text}" for other, text in obstacles.items()) or f"{wanted} has none"
        parts.append(f"{name} for {operations} ({reason})")
    return "kernels " + "; ".join(parts)


def _obstacle(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why an implementation cannot run here; empty if it can."""
    if name == "triton":
        return _obstacle_to_triton(device)
    if name == "apex":
        return _obstacle_to_apex(device)
    return "its kernels are not written yet"  # native: here


def _obstacle_to_triton(device: torch.device) -> str:
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it comes with torch for CUDA)"
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 or newer"
    return ""


def _obstacle_to_apex(device: torch.device) -> str:
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type}"
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return "NVIDIA's apex is not installed. Build it from its source: the package of that name on PyPI is another"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any((folder / "normalization").is_dir() for folder in folders):  # found without running another's code
        return f"the package apex in {folders[0] if folders else spec.origin} is not NVIDIA's: it has no apex.normalization"
    if importlib.util.find_spec("fused_layer_norm_cuda") is None:
        return "apex was built without its CUDA extensions: there is no fused_layer_norm_cuda"
    return ""
