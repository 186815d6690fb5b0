"""The encoder's layers through torch.compile: everything between two products is fused, for any number of tokens.

Layers and not the whole model, which is what DeepSpeed's `engine.compile()` takes: one graph then serves all layers of a
model, and nothing in it depends on how many sequences of what length a micro-batch packs, only on its tokens T, which
stay symbolic. Compiled in place, so parameters and checkpoints keep their names.
"""

import functools
import importlib.util

import torch

from model import bert
from model.kernels import layer_norm


def check_compiler(device: torch.device) -> None:
    """
    Raises:
        ValueError: what torch.compile generates could not be built here.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("--compile needs the triton package on a GPU: pip install triton, or leave --compile out")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(
            "--compile needs a C++ compiler (g++, or the one that CXX names): install one, or leave --compile out"
        ) from None


def compile_layers(model: bert.MaskedLanguageModel, device: torch.device) -> None:
    """Each layer is compiled when it first runs, which takes from seconds to a minute."""
    _keep_out_of_graphs(device.type)
    for layer in model.encoder.layers:
        layer.compile(dynamic=True)


@functools.cache
def _keep_out_of_graphs(device_type: str) -> None:
    """Leaves as they are what is fused by hand and asks for lengths or random bits in ways that a graph cannot hold.

    Here and not where they are defined: `torch.compiler.disable` loads the compiler, a second that only --compile is worth.
    """
    bert.attend = torch.compiler.disable(bert.attend)
    if device_type == "cpu":
        layer_norm.dropout = torch.compiler.disable(layer_norm.dropout)
