"""Which implementation of every fused operation runs, and why.

`native` is our C++ for CPUs, `triton` our kernels for GPUs, `apex` NVIDIA's, `torch` the plain operations.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from model.attention import choose_attention
from model.config import EncoderConfig
from model.kernels.native.library import obstacle as library_obstacle


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The implementation of each operation of a model, by name; the defaults run anywhere."""

    attention: str = "sdpa"
    linear: str = "torch"
    layer_norm: str = "torch"
    activation: str = "torch"
    softmax: str = "torch"
    vocab_loss: str = "torch"


OPERATIONS = ("linear", "layer_norm", "activation", "softmax", "vocab_loss")
IMPLEMENTS = {
    "native": ("linear", "layer_norm", "activation", "vocab_loss"),  # and an attention that needs no softmax of its own
    "triton": ("layer_norm", "activation", "softmax", "vocab_loss"),
    # Its softmax wants a mask of a byte for every score, and lengths that are multiples of four.
    "apex": ("layer_norm",),
}
AUTO = {"cpu": ("native",), "cuda": ("triton",)}
"""By preference. apex runs only where it is asked for: nobody has measured it against ours yet."""

NATIVE_MULTIPLE = 16
"""Of bf16 values, which fill a vector register in pairs of rows: what widths must be for our C++."""

COUNTER_BASED = ("triton", "native")
"""Their dropout masks come from model/kernels/philox.py, torch's own from its generator."""


def choose_kernels(
    wanted: str,
    wanted_attention: str,
    config: EncoderConfig,
    device: torch.device,
    dtype: torch.dtype,
    is_compiled: bool = False,
) -> tuple[Kernels, str]:
    """The kernels to run for a model of this shape and the reason, for the line printed at the start. `is_compiled`:
    torch.compile fuses the layers, so that only the vocabulary loss is left to choose for.

    An operation that the wanted implementation does not have runs as auto would choose.

    Raises:
        ValueError: an implementation was asked for by name where it cannot run.
    """
    order = {"auto": AUTO[device.type], "torch": ()}.get(wanted, (wanted, *AUTO[device.type]))
    obstacles = {name: _obstacle(name, device, dtype) or _obstacle_of_widths(name, config) for name in order}
    if obstacles.get(wanted):
        raise ValueError(f"--kernels {wanted} cannot run: {obstacles[wanted]}. Use --kernels auto")
    usable = [name for name in order if not obstacles[name]]
    attention, why_attention = _choose_attention(
        wanted_attention, config, device, dtype, "native" in usable and not is_compiled
    )
    chosen = {
        operation: next((name for name in usable if operation in IMPLEMENTS[name]), "torch")
        for operation in (("vocab_loss",) if is_compiled else OPERATIONS)
        if operation != "softmax" or attention == "softmax"  # no other attention asks for it
        if operation != "linear" or device.type == "cpu"  # on a GPU the vendor's library is the only one
    }
    kernels = Kernels(attention=attention, **chosen)
    why = _why(wanted, chosen, {name: text for name, text in obstacles.items() if text})
    if config.hidden_dropout > 0 and kernels.layer_norm in COUNTER_BASED:
        why += ", dropout counter-based (Philox)"
    return kernels, f"attention {attention} ({why_attention}), {why}"


def _choose_attention(
    wanted: str, config: EncoderConfig, device: torch.device, dtype: torch.dtype, has_native: bool
) -> tuple[str, str]:
    """`has_native`: our C++ does the other operations."""
    head = config.hidden_size // config.num_heads
    if not has_native:
        return choose_attention(wanted, device, dtype, config.attention_dropout, head)
    obstacle = (
        f"it needs heads whose width is a multiple of {NATIVE_MULTIPLE}, these have {head}"
        if head % NATIVE_MULTIPLE
        else ""
    )
    attention, why = choose_attention(wanted, device, dtype, config.attention_dropout, head, obstacle)
    return attention, f"{why}; native: {obstacle}" if obstacle and wanted == "auto" else why


def runnable(operation: str, device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Every fused implementation of an operation that runs here, given widths that suit it."""
    names = (name for name, own in IMPLEMENTS.items() if operation in own)
    return tuple(name for name in names if not _obstacle(name, device, dtype))


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
        return apex_obstacle() if device.type == "cuda" else f"it needs a CUDA device, this is {device.type}"
    return _obstacle_to_native(device, dtype)


def _obstacle_of_widths(name: str, config: EncoderConfig) -> str:
    """Of the operations over whole rows; attention has its own."""
    widths = (config.hidden_size, config.intermediate_size)
    if name == "native" and any(width % NATIVE_MULTIPLE for width in widths):
        return f"it needs widths that are multiples of {NATIVE_MULTIPLE}, these are {', '.join(map(str, widths))}"
    return ""


def _obstacle_to_native(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cpu":
        return f"it is for CPUs, this is {device.type}"
    if dtype != torch.bfloat16:
        return f"it needs bf16, this is {str(dtype).removeprefix('torch.')}"
    return library_obstacle()


def _obstacle_to_triton(device: torch.device) -> str:
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it comes with torch for CUDA)"
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 or newer"
    return ""


def apex_obstacle() -> str:
    """Why no apex of NVIDIA's can run, told without running a package that may be another's; empty where one can."""
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return "NVIDIA's apex is not installed. Build it from its source: the package of that name on PyPI is another"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any((folder / "normalization").is_dir() for folder in folders):  # found without running another's code
        return f"the package apex in {folders[0] if folders else spec.origin} is not NVIDIA's: it has no apex.normalization"
    if importlib.util.find_spec("fused_layer_norm_cuda") is None:
        return "apex was built without its CUDA extensions: there is no fused_layer_norm_cuda"
    return ""
