"""Attention heads that are gone from a Hugging Face folder whose shapes are whole: their columns of the output are zeros.

transformers prunes no heads any more. A zero column computes the same in all that reads such folders; what exports or
trains one looks into config.json for which heads they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.families import FAMILIES

Model = TypeVar("Model", bound=nn.Module)

PRUNED_HEADS = "distillery_pruned_heads"
"""Key of config.json: layer (as text) -> heads that are gone. Their columns of the attention's output are zeros there."""


def pruned_heads(config: Any) -> dict[int, tuple[int, ...]]:
    """Layer -> heads that are gone. Errors: ValueError where a layer, a head or every head of a layer is wrong."""
    pruned = {int(layer): tuple(heads) for layer, heads in (getattr(config, PRUNED_HEADS, None) or {}).items()}
    for layer, heads in pruned.items():
        known = range(config.num_attention_heads)
        if layer not in range(config.num_hidden_layers) or not set(heads) < set(known):
            raise ValueError(
                f"config.json, {PRUNED_HEADS}: layer {layer} without heads {list(heads)}, but the model has layers 0 to "
                f"{config.num_hidden_layers - 1} of heads 0 to {known[-1]}, and one head of a layer stays"
            )
    return pruned


def name_pruned_heads(config: Any, pruned: Mapping[int, Iterable[int]]) -> None:
    """Write them into a configuration; the key is there only where a head is gone."""
    named = {str(layer): sorted(heads) for layer, heads in sorted(pruned.items()) if heads}
    if named:
        setattr(config, PRUNED_HEADS, named)
    elif hasattr(config, PRUNED_HEADS):
        delattr(config, PRUNED_HEADS)


def renumbered(pruned: Mapping[int, Sequence[int]], layers: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Of a model that keeps those layers, in that order."""
    return {new: tuple(pruned[old]) for new, old in enumerate(layers) if old in pruned}


def attention_output(model: nn.Module, layer: int) -> nn.Linear:
    """One of transformers' models: the projection whose columns are the heads', side by side."""
    (name,) = FAMILIES[model.config.model_type].names["encoder.layers.{i}.attention_output.*"]
    found = model.get_submodule(name.replace("{i}", str(layer)).removesuffix(".*"))
    assert isinstance(found, nn.Linear)
    return found


def zero_pruned_heads(model: Model) -> Model:
    """The model, with zeros where its configuration says that a head is gone."""
    for weight, columns in _pruned_columns(model):
        with torch.no_grad():
            weight[:, columns] = 0
    return model


def hold_pruned_heads(model: Model) -> Model:
    """The model, whose training leaves pruned heads at zero: their gradient is 0.

    Then momentum, weight decay and the norm that gradients are clipped by are those of a model without these columns, and
    the same weights come out. Setting them to zero after an update would let them take part in that norm.
    """
    for weight, columns in _pruned_columns(zero_pruned_heads(model)):
        weight.register_hook(lambda gradient, columns=columns: gradient.index_fill(1, columns.to(gradient.device), 0))
    return model


def _pruned_columns(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(weight of the attention's output, its columns of pruned heads), one for each layer that lacks some."""
    config: Any = getattr(model, "config", None)
    found = []
    for layer, heads in pruned_heads(config).items():
        weight = attention_output(model, layer).weight
        head_dim = weight.shape[1] // config.num_attention_heads
        columns = (torch.tensor(heads)[:, None] * head_dim + torch.arange(head_dim)).flatten()
        found.append((weight, columns))
    return found
