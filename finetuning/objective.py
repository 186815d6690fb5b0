"""The loss of a fine-tuning, and of a second distillation: soft targets of a task teacher, gold labels, hidden states.

In fp32, means over the examples of a batch. For spans start and end count half each, as in Sanh et al. 2019.
Shapes: B examples, C classes, L tokens of the longest, H width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.tasks import Kind


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the components in the loss."""

    distillation: float = 0.0
    task: float = 1.0
    cosine: float = 0.0
    temperature: float = 1.0


def span_logits(start_logits: Tensor, end_logits: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, 2, L) in fp32: a padded position is no answer, so that a loss does not depend on how far a batch is padded."""
    both = torch.stack([start_logits, end_logits], dim=1).float()
    return both.masked_fill(~attention_mask.bool()[:, None], -torch.inf)


def components(
    kind: Kind, logits: Tensor, batch: Mapping[str, Tensor], weights: Weights, pooled: Tensor | None
) -> dict[str, Tensor]:
    """Unweighted, those with a weight. logits (B, C), or (B, 2, L) of spans; pooled (B, H) where cosine has a weight."""
    found = {}
    if weights.task:
        found["task"] = _task_loss(kind, logits, batch)
    if weights.distillation:
        found["distillation"] = _soft_loss(kind, logits, batch["teacher_logits"], weights.temperature)
    if weights.cosine:
        assert pooled is not None
        found["cosine"] = 1 - F.cosine_similarity(pooled.float(), batch["teacher_pooled"].float()).mean()
    return found


def total(found: Mapping[str, Tensor], weights: Weights) -> Tensor:
    return torch.stack([getattr(weights, name) * value for name, value in found.items()]).sum()


def _task_loss(kind: Kind, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    if kind is Kind.SPAN:
        positions = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)  # (B, 2)
        return F.cross_entropy(logits.flatten(0, 1), positions.flatten())
    if kind is Kind.REGRESSION:
        return F.mse_loss(logits.float()[:, 0], batch["labels"].float())
    return F.cross_entropy(logits.float(), batch["labels"])


def _soft_loss(kind: Kind, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student), a span's start and end half each; a regression follows the teacher's number."""
    if kind is Kind.REGRESSION:
        return F.mse_loss(logits.float(), targets.float())
    wanted = torch.log_softmax(targets.float() / temperature, dim=-1)
    given = torch.log_softmax(logits.float() / temperature, dim=-1)
    # In the padding of spans both are -inf, whose difference is nan; its probability is 0.
    difference = torch.where(torch.isfinite(wanted), wanted - given, 0.0)
    return temperature**2 * (wanted.exp() * difference).sum(dim=-1).mean()
