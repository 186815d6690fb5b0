"""What a model says of all inputs: shared among the ranks, neighbours of like length in a batch.

Shapes: L tokens of an input, C outputs, H width.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.tasks import Kind
from finetuning.features import INPUTS, Collator, Feature

TOKENS_AT_A_TIME = {"cpu": 4096, "cuda": 65536}
"""Of a batch, padding included."""


@torch.no_grad()
def predict(
    model: nn.Module,
    kind: Kind,
    features: Sequence[Feature],
    collator: Collator,
    dtype: torch.dtype | None,
    *,
    with_pooled: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Together: logits in fp32 of every feature in order, (C,) or (2, L) of spans; with_pooled also (H,) each.

    `dtype` is autocast's, None for none. The model is left in evaluation mode.
    """
    model.eval()
    device = next(model.parameters()).device
    rank, num_ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    logits: dict[int, np.ndarray] = {}
    pooled: dict[int, np.ndarray] = {}
    for rows in _batches(features, TOKENS_AT_A_TIME[device.type])[rank::num_ranks]:
        inputs = [{name: features[row][name] for name in INPUTS if name in features[row]} for row in rows]
        batch = {name: value.to(device) for name, value in collator(inputs).items()}
        with first_hidden(model, with_pooled) as seen, autocast(device, dtype):
            output = model(**batch)
        found = _as_arrays(kind, output)
        for number, row in enumerate(rows):
            logits[row] = found[number][..., : len(features[row]["input_ids"])] if kind is Kind.SPAN else found[number]
            if with_pooled:
                pooled[row] = seen[0][number].float().cpu().numpy()
    for mine in (logits, pooled):
        if num_ranks > 1:
            everybody: list[Any] = [None] * num_ranks
            dist.all_gather_object(everybody, dict(mine))
            for other in everybody:
                mine.update(other)
    return ([logits[row] for row in range(len(features))], [pooled[row] for row in range(len(pooled))])


def _batches(features: Sequence[Feature], tokens: int) -> list[list[int]]:
    """Rows of like length, longest first, so that what does not fit into memory fails at once."""
    order = sorted(range(len(features)), key=lambda row: -len(features[row]["input_ids"]))
    batches: list[list[int]] = []
    for row in order:
        if not batches or (len(batches[-1]) + 1) * len(features[batches[-1][0]]["input_ids"]) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _as_arrays(kind: Kind, output: Any) -> np.ndarray:
    logits = output.logits if kind is not Kind.SPAN else torch.stack([output.start_logits, output.end_logits], dim=1)
    return logits.float().cpu().numpy()


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    return torch.autocast(device.type, dtype) if dtype is not None else contextlib.nullcontext()


def with_exact_head(model: nn.Module) -> nn.Module:
    """Its last product in fp32, whatever autocast says of the others.

    Rounded to bf16, 1,500 similarities had 101 values, and the difference of a student to its teacher is lost.
    """
    *_, head = (module for module in model.modules() if isinstance(module, nn.Linear))

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), head.weight.float(), head.bias.float())

    head.forward = forward
    return model


@contextlib.contextmanager
def first_hidden(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Collects (B, H), the first token's last hidden state, of every forward pass inside; nothing where not wanted."""
    seen: list[Tensor] = []
    if not wanted:
        yield seen
        return
    base = getattr(model, "module", model)  # of DistributedDataParallel or the DeepSpeed engine
    handle = base.base_model.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0][:, 0]))
    try:
        yield seen
    finally:
        handle.remove()
