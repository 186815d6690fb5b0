"""The bytes that autograd saves, counted by its own hooks, against the formula."""

import pytest
import torch

from model.bert import MaskedLanguageModel
from model.config import EncoderConfig
from model.kernels.choice import choose_kernels
from model.kernels.native.library import obstacle
from model.memory import activation_bytes
from model.student import make_random

SEQUENCES, LENGTH = 4, 48
KERNELS = [
    ("torch", "blocked", torch.float32, 0.1),
    ("torch", "blocked", torch.bfloat16, 0.0),
    ("torch", "softmax", torch.bfloat16, 0.1),
    pytest.param(
        *("native", "auto", torch.bfloat16, 0.1), marks=pytest.mark.skipif(bool(obstacle()), reason=obstacle())
    ),
]


def saved_bytes(model: MaskedLanguageModel) -> int:
    """Of every storage that is kept for backward and is no weight."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # the tensors too: a storage that is freed could return under the same address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randint(model.config.vocab_size, (SEQUENCES * LENGTH,))
    positions = torch.arange(LENGTH).repeat(SEQUENCES)
    starts = (torch.arange(SEQUENCES + 1) * LENGTH).to(torch.int32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, positions, starts, LENGTH)
    return sum(kept[at].untyped_storage().nbytes() for at in kept.keys() - weights)


@pytest.mark.parametrize(("wanted", "attention", "dtype", "dropout"), KERNELS)
@pytest.mark.parametrize(("hidden", "inner", "layers"), [(64, 256, 3), (128, 192, 2)])
def test_activations_are_what_autograd_saves(
    wanted: str, attention: str, dtype: torch.dtype, dropout: float, hidden: int, inner: int, layers: int
) -> None:
    config = EncoderConfig(
        vocab_size=128,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=4,
        intermediate_size=inner,
        hidden_dropout=dropout,
        attention_dropout=dropout,
    )
    kernels, _ = choose_kernels(wanted, attention, config, torch.device("cpu"), dtype)
    model = make_random(config, kernels=kernels, seed=0).to(dtype)
    rows = SEQUENCES * LENGTH
    predicted = activation_bytes(config, kernels, rows=rows, longest=LENGTH, width=dtype.itemsize)
    assert predicted == pytest.approx(saved_bytes(model), rel=0.05)
