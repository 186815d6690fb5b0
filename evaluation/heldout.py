"""Held-out language modelling on fixed masks: how well a model predicts words, and how near it is to its teacher.

Shapes: T real tokens of a batch, M masked ones, H width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data.batching import Batch
from model.bert import Prediction
from model.kernels.gemm import as_operand, exact_16_bit_products, mm_fp32
from model.kernels.vocab_loss import CHUNK_TOKENS, Decoder
from model.objective import cosine_distance

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over ranks, in place."""


class Scorable(Protocol):
    """A teacher or a student: anything that predicts from a packed batch."""

    def __call__(self, token_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Prediction: ...

    def decoder(self) -> Decoder: ...


class _Projection:
    """features (C, H) -> log probabilities (C, vocab_size) in fp32, the weight prepared once."""

    def __init__(self, decoder: Decoder) -> None:
        self.weight, self.bias = as_operand(decoder.weight).T, decoder.bias.float()
        self.vocab_size = decoder.vocab_size

    def __call__(self, features: Tensor, temperature: float = 1.0) -> Tensor:
        with exact_16_bit_products(features):
            logits = mm_fp32(as_operand(features), self.weight) + self.bias
        return torch.log_softmax(logits[:, : self.vocab_size] / temperature, dim=-1)


@torch.no_grad()
def evaluate(
    student: Scorable,
    teacher: Scorable | None,
    batches: Iterable[Batch],
    *,
    temperature: float,
    device: torch.device,
    reduce: Reduce,
) -> dict[str, float]:
    """Figures over all batches of all ranks.

    eval_mlm_loss (nats per masked token), eval_mlm_accuracy, eval_perplexity = exp(eval_mlm_loss); with a teacher also
    eval_distillation (T^2 KL per attended position, as trained on), eval_agreement (share of masked positions where both
    put the same word first) and eval_cosine (1 - cos of the last hidden states per attended position).
    """
    sums = torch.zeros(7, dtype=torch.float64, device=device)
    project = _Projection(student.decoder())
    project_teacher = _Projection(teacher.decoder()) if teacher is not None else None
    for batch in batches:
        on_device = batch.to(device)
        layout = (on_device.token_ids, on_device.position_ids, on_device.cu_seqlens, on_device.max_seqlen)
        own = student(*layout)
        sums[:3] += _score(own, project, on_device)
        if teacher is not None and project_teacher is not None:
            sums[3:] += _compare(own, project, teacher(*layout), project_teacher, on_device, temperature)
    nll, correct, masked, kl, agree, cosine, attended = reduce(sums).tolist()
    figures = {
        "eval_mlm_loss": nll / masked,
        "eval_mlm_accuracy": correct / masked,
        "eval_perplexity": perplexity(nll / masked),
    }
    if teacher is not None:
        figures["eval_distillation"] = temperature**2 * kl / attended
        figures["eval_agreement"] = agree / masked
        figures["eval_cosine"] = cosine / attended
    return figures


def perplexity(loss: float) -> float:
    """exp of nats per token; infinite where that overflows, as in a run that diverges."""
    return math.exp(loss) if loss < 700.0 else math.inf


@torch.no_grad()
def frequency_loss(batches: Iterable[Batch], token_counts: np.ndarray, reduce: Reduce, device: torch.device) -> float:
    """Nats per masked token of predicting by word frequency alone, on the same labels: what a model must beat."""
    smoothed = np.maximum(token_counts.astype(np.float64), 1.0)
    surprise = torch.from_numpy(np.log(smoothed.sum()) - np.log(smoothed))
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        labels = batch.masked_labels.cpu()
        sums += torch.stack([surprise[labels].sum(), torch.tensor(float(len(labels)), dtype=torch.float64)])
    nll, masked = reduce(sums.to(device)).tolist()
    return nll / masked


def _score(own: Prediction, project: _Projection, batch: Batch) -> Tensor:
    """(3,) sums of one batch: negative log-likelihood, correct, masked."""
    labels = batch.masked_labels
    log_probs = project(own.features.index_select(0, batch.masked_positions))
    nll = -log_probs.gather(1, labels[:, None]).sum()
    correct = (log_probs.argmax(-1) == labels).sum()
    return torch.stack([nll.double(), correct.double(), nll.new_tensor(len(labels), dtype=torch.float64)])


def _compare(
    own: Prediction,
    project: _Projection,
    other: Prediction,
    project_other: _Projection,
    batch: Batch,
    temperature: float,
) -> Tensor:
    """(4,) sums of one batch: KL(teacher || student), masked positions agreed on, 1 - cos, attended positions."""
    masked = batch.masked_positions
    best = project(own.features.index_select(0, masked)).argmax(-1)
    best_other = project_other(other.features.index_select(0, masked)).argmax(-1)
    kl = own.hidden.new_zeros((), dtype=torch.float64)
    chunk_tokens = CHUNK_TOKENS[own.hidden.device.type]
    for start in range(0, batch.num_tokens, chunk_tokens):
        rows = slice(start, start + chunk_tokens)
        log_student = project(own.features[rows], temperature)
        log_teacher = project_other(other.features[rows], temperature)
        kl += (log_teacher.exp() * (log_teacher - log_student)).sum()
    cosine = cosine_distance(own.hidden, other.hidden)
    attended = kl.new_tensor(batch.num_tokens)
    return torch.stack([kl, (best == best_other).sum().double(), cosine.double(), attended])
