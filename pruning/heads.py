"""Which attention heads matter: the importance of Michel et al. 2019, and the choice that follows from it.

Importance is taken on the graph that is exported, whose layers have only the heads that are left of them.
Shapes: B examples of a batch, L tokens, A heads of a layer, D width of a head.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporting.plain import PlainModel
from model.pruned_heads import name_pruned_heads, pruned_heads, zero_pruned_heads

Importance = list[dict[int, float]]
"""For each layer: head that is left, by its number in the whole layer -> importance."""


def head_importance(
    plain: PlainModel,
    heads: Sequence[Sequence[int]],
    batches: Iterable[Any],
    num_inputs: Callable[[Any], int],
    loss: Callable[[PlainModel, Any], Tensor],
) -> Importance:
    """I_h = E_x |dL(x) / d xi_h|, divided by the l2 norm of its layer's; xi_h = 1 multiplies what head h computes.

    Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?", equation 2, with the normalisation of its
    section 2.3 (after Molchanov et al. 2017). The absolute value is each input's own, as in the equation; implementations
    that take it of a batch's sum let inputs cancel each other. Every input has its own xi, so one backward pass gives all.

    `heads` names those that are left in each layer. `loss(plain, batch)` is the sum over the batch's inputs of their losses.
    Errors: ValueError where there is no input, or a gradient is not finite.
    """
    sums = [torch.zeros(len(names), dtype=torch.float64) for names in heads]
    total = 0
    for batch in batches:
        count = num_inputs(batch)
        gates = [torch.ones(count, len(names), requires_grad=True) for names in heads]
        with _gated(plain, gates):
            gradients = torch.autograd.grad(loss(plain, batch), gates)
        for layer, gradient in enumerate(gradients):  # (B, A)
            sums[layer] += gradient.detach().double().abs().sum(dim=0).cpu()
        total += count
    if not total:
        raise ValueError("no input to take the importance of heads from. Give --data with at least one")
    if not all(torch.isfinite(layer).all() for layer in sums):
        raise ValueError("the importance of heads is not finite: this model's loss is nan or infinite on --data")
    normalised = [layer / total / (layer / total).norm().clamp_min(torch.finfo(torch.float64).tiny) for layer in sums]
    return [dict(zip(names, layer.tolist(), strict=True)) for names, layer in zip(heads, normalised, strict=True)]


@contextlib.contextmanager
def _gated(plain: PlainModel, gates: Sequence[Tensor]) -> Iterator[None]:
    """Inside, what head a of input b computes is multiplied by gates[layer][b, a]."""
    handles = []
    for layer, gate in zip(plain.encoder.layers, gates, strict=True):

        def scale(_module: nn.Module, inputs: tuple[Tensor], gate: Tensor = gate) -> tuple[Tensor]:
            (mixed,) = inputs  # (B, L, A * D)
            scaled = mixed.unflatten(-1, (gate.shape[1], -1)) * gate[:, None, :, None].to(mixed)
            return (scaled.flatten(2),)

        handles.append(layer.attention_output.register_forward_pre_hook(scale))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def heads_left(config: Any) -> list[list[int]]:
    """Of each layer of a transformers configuration."""
    gone = pruned_heads(config)
    return [
        [head for head in range(config.num_attention_heads) if head not in gone.get(layer, ())]
        for layer in range(config.num_hidden_layers)
    ]


def num_gone(config: Any, share: float, flag: str) -> int:
    """Heads that are gone at that share of all.

    Errors: ValueError, naming `flag`, where a layer would be without heads, or fewer would be gone than now.
    """
    layers, of = config.num_hidden_layers, config.num_hidden_layers * config.num_attention_heads
    wanted, before = round(share * of), sum(map(len, pruned_heads(config).values()))
    if wanted > of - layers:
        raise ValueError(
            f"{flag} {share:g}: {wanted} of {of} heads gone would leave a layer without any. At most a share of "
            f"{(of - layers) / of:.4g} can go, which leaves each layer one"
        )
    if wanted < before:
        raise ValueError(
            f"{flag} {share:g}: {before} of {of} heads are gone already. Give a share of all that is larger"
        )
    return wanted


def choose_heads(importance: Importance, config: Any, wanted: int) -> dict[int, tuple[int, ...]]:
    """Layer -> heads, `wanted` in all: those that are gone already, then the least important ones of all layers.

    The last head of a layer stays, and the next one goes instead.
    """
    gone = {layer: set(heads) for layer, heads in pruned_heads(config).items()}
    left = {layer: len(heads) for layer, heads in enumerate(importance)}
    ranking = sorted((value, layer, head) for layer, heads in enumerate(importance) for head, value in heads.items())
    for _, layer, head in ranking:
        if sum(map(len, gone.values())) == wanted:
            break
        if left[layer] > 1:
            gone.setdefault(layer, set()).add(head)
            left[layer] -= 1
    return {layer: tuple(sorted(heads)) for layer, heads in sorted(gone.items())}


def remove_heads(model: nn.Module, gone: Mapping[int, Sequence[int]]) -> None:
    """In place: zero columns, and their names in its configuration."""
    name_pruned_heads(model.config, gone)
    zero_pruned_heads(model)
