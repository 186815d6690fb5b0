"""The triple loss: distillation, masked LM and cosine, each over the denominators of the whole update.

Shapes: T real tokens of the micro-batch, M masked ones, H hidden width (the same for student and teacher).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.bert import Prediction
from model.config import ObjectiveConfig
from model.kernels.vocab_loss import VocabLossTerms, masked_lm_loss, vocab_loss


class Losses(NamedTuple):
    """This micro-batch's share of the update's loss; shares add up over ranks and micro-batches."""

    total: Tensor
    """Carries the gradient."""
    distillation: Tensor
    mlm: Tensor
    cosine: Tensor
    """The components, unweighted and detached."""


class TripleLoss:
    """w_d * L_distillation + w_m * L_mlm + w_c * L_cosine (Sanh et al. 2019), or L_mlm alone where there is no teacher."""

    def __init__(self, config: ObjectiveConfig, kernel: str = "torch") -> None:
        self.config, self.kernel = config, kernel

    def __call__(
        self,
        student: Prediction,
        teacher: Prediction,
        masked_positions: Tensor,
        masked_labels: Tensor,
        *,
        attended: int,
        masked: int,
    ) -> Losses:
        """Both predictions with features where `predict_at` says; `attended` and `masked` count the whole update."""
        distilled = attended
        if self.config.predicts_masked_only:
            distilled = masked
            masked_positions = torch.arange(masked_labels.shape[0], device=masked_labels.device)
        terms = self._terms(distilled, masked)
        vocabulary = vocab_loss(
            student.features,
            student.decoder,
            teacher.features,
            teacher.decoder,
            masked_positions,
            masked_labels,
            terms,
            kernel=self.kernel,
        )
        cosine = cosine_distance(student.hidden, teacher.hidden) / attended
        total = vocabulary.weighted + self.config.weight_cosine * cosine
        return Losses(total, vocabulary.distillation, vocabulary.mlm, cosine.detach())

    def predict_at(self, masked_positions: Tensor) -> Tensor | None:
        """The positions whose features the objective needs, for the models' forward; None for all."""
        return masked_positions if self.config.predicts_masked_only else None

    def masked_lm(self, student: Prediction, masked_labels: Tensor, *, masked: int) -> Losses:
        """The objective without a teacher: `student.features` (M, H) of the masked positions only, weight 1."""
        terms = VocabLossTerms(
            temperature=1.0, weight_distillation=0.0, weight_mlm=1.0, attended=float(masked), masked=float(masked)
        )
        loss = masked_lm_loss(student.features, student.decoder, masked_labels, terms, kernel=self.kernel)
        zero = torch.zeros_like(loss.mlm)
        return Losses(loss.weighted, zero, loss.mlm, zero)

    def _terms(self, distilled: int, masked: int) -> VocabLossTerms:
        return VocabLossTerms(
            temperature=self.config.temperature,
            weight_distillation=self.config.weight_distillation,
            weight_mlm=self.config.weight_mlm,
            attended=float(distilled),
            masked=float(masked),
        )


def cosine_distance(student_hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
    """Sum over positions of 1 - cos(student, teacher), in fp32 at least. (T, H), (T, H) -> ()"""
    wide = torch.promote_types(student_hidden.dtype, torch.float32)
    return (1.0 - F.cosine_similarity(student_hidden.to(wide), teacher_hidden.to(wide), dim=-1)).sum()
