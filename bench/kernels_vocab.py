"""The vocabulary loss of `bench.kernels`: inputs, implementations, errors.

The decoder's biases are zero, as a fresh BERT's are, so that Liger's kernels, whose divergence takes none, compute the
same loss.

Shapes: T tokens, H width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.kernels_cases import LOGITS_TOKENS, Case
from model.kernels.choice import runnable
from model.kernels.vocab_loss import Decoder, VocabLossTerms, vocab_loss, vocab_loss_reference

TEMPERATURE, WEIGHT_DISTILLATION, WEIGHT_MLM = 2.0, 5.0, 2.0
MASKED_SHARE = 0.15
DISTANCE = 0.05
"""Of the student from its teacher, in units of their features: where rounding hurts, and every distillation ends."""
ERROR_TOKENS = 256
VOCABULARY_MULTIPLE = 64

LIGER = "KL without bias by LigerFusedLinearJSD, cross entropy of the masked rows by LigerFusedLinearCrossEntropyLoss"
NAMES = {
    "torch": "ours, torch in chunks",
    "eager": "plain torch, all logits at once",
    "compile": "the same through torch.compile",
    "liger": f"Liger: {LIGER}",
}

Loss = Callable[["VocabInputs"], Tensor]


class VocabInputs(NamedTuple):
    """The leaves come first."""

    features: Tensor
    """(T, H)"""
    weight: Tensor
    """(V, H), V a multiple of 64."""
    bias: Tensor
    teacher_features: Tensor
    teacher_weight: Tensor
    teacher_bias: Tensor
    positions: Tensor
    labels: Tensor
    vocab: int
    weight_mlm: float

    def terms(self) -> VocabLossTerms:
        return VocabLossTerms(
            temperature=TEMPERATURE,
            weight_distillation=WEIGHT_DISTILLATION,
            weight_mlm=self.weight_mlm,
            attended=float(self.features.shape[0]),
            masked=float(self.positions.shape[0]),
        )


def implementations(device: torch.device) -> list[str]:
    """Everything that runs here, the reference of the ratios first."""
    liger = ["liger"] if device.type == "cuda" and _has_liger() else []
    return ["torch", *runnable("vocab_loss", device, torch.bfloat16), "eager", "compile", *liger]


def make_inputs(case: Case, device: torch.device, weight_mlm: float = WEIGHT_MLM) -> VocabInputs:
    """bf16; features as after a layer norm, logits of a few units."""
    rows = -(-case.vocab // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    hidden = case.shape.hidden
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    teacher_features, teacher_weight = draw(case.tokens, hidden), draw(rows, hidden).mul_(3.0 * hidden**-0.5)
    features = teacher_features + DISTANCE * draw(case.tokens, hidden)
    # In place, so that the noise is all that is ever made beside it.
    weight = draw(rows, hidden).mul_(DISTANCE * 3.0 * hidden**-0.5).add_(teacher_weight)
    masked = max(1, round(MASKED_SHARE * case.tokens))
    positions = torch.randperm(case.tokens, generator=generator, device=device)[:masked].sort().values
    leaves = [t.bfloat16().requires_grad_() for t in (features, weight, torch.zeros(rows, device=device))]
    constants = [t.bfloat16() for t in (teacher_features, teacher_weight, torch.zeros(rows, device=device))]
    labels = torch.randint(case.vocab, (masked,), generator=generator, device=device)
    return VocabInputs._make((*leaves, *constants, positions, labels, case.vocab, weight_mlm))


def loss_of(implementation: str, chunk_tokens: int = 0) -> Loss:
    if implementation == "eager":
        return _eager
    if implementation == "compile":
        return torch.compile(_eager)
    if implementation == "liger":
        return _liger
    return lambda inputs: vocab_loss(**_arguments(inputs), chunk_tokens=chunk_tokens, kernel=implementation).weighted


def logits_kernels(device: torch.device) -> list[str]:
    """Who turns logits into gradients in a kernel of its own."""
    return [name for name in runnable("vocab_loss", device, torch.bfloat16) if name == "triton"]


def logits_function(case: Case, device: torch.device) -> Callable[[], object]:
    """One chunk's logits to its gradient, which is written beside them."""
    from model.kernels.triton_kernels import vocab_loss as kernel

    before = kernel.BLOCK, kernel.NUM_WARPS
    tile = case.tile if case.tile[0] else before
    rows = min(case.tokens, LOGITS_TOKENS)
    width = -(-case.vocab // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    logits, teacher_logits = (3.0 * torch.randn(rows, width, device=device) for _ in range(2))
    bias = torch.zeros(width, device=device, dtype=torch.bfloat16)
    labels = torch.zeros(round(MASKED_SHARE * rows), device=device, dtype=torch.int64)
    scales = {"temperature": TEMPERATURE, "kl_scale": WEIGHT_DISTILLATION * TEMPERATURE, "nll_scale": WEIGHT_MLM}

    def run() -> None:
        kernel.BLOCK, kernel.NUM_WARPS = tile
        kernel.logits_to_gradient(
            logits, bias, teacher_logits, bias, labels, vocab_size=case.vocab, dtype=torch.bfloat16, **scales
        )
        kernel.BLOCK, kernel.NUM_WARPS = before

    return run


def gradient_errors(case: Case, loss: Loss, device: torch.device) -> tuple[float, float]:
    """Relative errors of d(features) and d(weight), distillation alone, on a few tokens."""
    inputs = make_inputs(dataclasses.replace(case, tokens=min(case.tokens, ERROR_TOKENS)), device, weight_mlm=0.0)
    got = torch.autograd.grad(loss(inputs), inputs[:2])
    wide = [t.detach().double() for t in inputs[:6]]
    exact = VocabInputs._make((*(t.requires_grad_() for t in wide[:3]), *wide[3:], *inputs[6:]))
    want = torch.autograd.grad(_eager(exact), exact[:2])
    first, second = (((g.double() - w).norm() / w.norm()).item() for g, w in zip(got, want, strict=True))
    return first, second


def _arguments(inputs: VocabInputs) -> dict[str, Any]:
    return {
        "student_features": inputs.features,
        "student": Decoder(inputs.weight, inputs.bias, inputs.vocab),
        "teacher_features": inputs.teacher_features,
        "teacher": Decoder(inputs.teacher_weight, inputs.teacher_bias, inputs.vocab),
        "masked_positions": inputs.positions,
        "masked_labels": inputs.labels,
        "terms": inputs.terms(),
    }


def _eager(inputs: VocabInputs) -> Tensor:
    return vocab_loss_reference(**_arguments(inputs)).weighted


def _has_liger() -> bool:
    try:
        import liger_kernel.transformers  # noqa: F401
    except ImportError:
        return False
    return True


def _liger(inputs: VocabInputs) -> Tensor:
    """What Liger's kernels can express; its divergence is a mean over rows, without the square of T and without bias."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD

    vocab = inputs.vocab
    divergence = LigerFusedLinearJSD(jsd_beta=0.0, temperature=TEMPERATURE, accum_dtype=torch.float32)
    teacher = (inputs.teacher_features, inputs.teacher_weight[:vocab])
    kl = divergence(inputs.features, inputs.weight[:vocab], *teacher, None)
    loss = WEIGHT_DISTILLATION * TEMPERATURE**2 * kl
    if inputs.weight_mlm:
        cross_entropy = LigerFusedLinearCrossEntropyLoss(accum_dtype=torch.float32)
        masked = inputs.features.index_select(0, inputs.positions)
        nll = cross_entropy(inputs.weight[:vocab], masked, inputs.labels, inputs.bias[:vocab])
        loss = loss + inputs.weight_mlm * nll
    return loss
