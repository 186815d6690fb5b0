"""The vocabulary projection together with distillation and masked-LM loss, in one walk over chunks of tokens.

With N attended positions and M masked ones, both counted over the whole update (all ranks and micro-batches):

    L_distillation = T^2 / N * sum_attended KL( softmax(t/T) || softmax(s/T) )
    L_mlm          = 1 / M   * sum_masked  -log softmax(s)[label]

A (tokens, vocabulary) tensor of logits never exists beyond one chunk: each chunk is projected, softmaxed in fp32, turned
into d(logits) and at once into d(features), dW and db. Backward only scales what forward made. Inside the walk the loss
is carried per attended token (the 1/N is applied at the end, in fp32), so that fp16 gradients do not underflow when an
update counts millions of tokens.

Shapes: T real tokens of the micro-batch, M masked ones, H width, V padded vocabulary, C tokens of a chunk.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.kernels.gemm import add_mm_fp32, as_operand, exact_16_bit_products, mm_fp32
from model.kernels.native import vocab_loss as native
from model.kernels.native.convert import scale_to_bf16

CHUNK_TOKENS = {"cpu": 256, "cuda": 2048}
"""Rows projected at a time. On 2 CPU cores 256 was the fastest (128, 256, 512 tried): both logits blocks stay in the
last-level cache. On CUDA, unmeasured, enough rows that adding dW up costs less than computing it."""


class Decoder(NamedTuple):
    """The vocabulary projection: logits = features @ weight.T + bias, of which the first `vocab_size` are real."""

    weight: Tensor
    """(V, H), tied to the word embedding."""
    bias: Tensor
    """(V,)"""
    vocab_size: int


@dataclass(frozen=True, kw_only=True)
class VocabLossTerms:
    """The scalars of the loss. `attended` and `masked` count the whole update, not the micro-batch."""

    temperature: float
    weight_distillation: float
    weight_mlm: float
    attended: float
    masked: float


class VocabLoss(NamedTuple):
    weighted: Tensor
    """weight_distillation * distillation + weight_mlm * mlm; carries the gradient."""
    distillation: Tensor
    """Unweighted, detached."""
    mlm: Tensor
    """Unweighted, detached."""


def vocab_loss(
    student_features: Tensor,
    student: Decoder,
    teacher_features: Tensor,
    teacher: Decoder,
    masked_positions: Tensor,
    masked_labels: Tensor,
    terms: VocabLossTerms,
    chunk_tokens: int = 0,
    kernel: str = "torch",
) -> VocabLoss:
    """Both losses that need the vocabulary, fused with its projection.

    student_features and teacher_features (T, H_student), (T, H_teacher); masked_positions (M,) ascending and
    masked_labels (M,); `chunk_tokens` 0 is the device's default. fp32 inside whatever the inputs are (float64 for
    float64). Gradients reach student_features and the student's decoder; the teacher gets none.
    """
    # Masked rows first: the cross entropy then concerns a prefix whose length the host knows without asking the device.
    is_free = torch.ones(student_features.shape[0], dtype=torch.uint8, device=student_features.device)
    order = torch.argsort(is_free.index_fill(0, masked_positions, 0), stable=True)
    inputs = _Inputs(teacher_features, teacher, order, masked_labels, terms, chunk_tokens, student.vocab_size, kernel)
    return VocabLoss(*_ChunkedVocabLoss.apply(student_features, student.weight, student.bias, inputs))


def masked_lm_loss(
    features: Tensor,
    decoder: Decoder,
    labels: Tensor,
    terms: VocabLossTerms,
    chunk_tokens: int = 0,
    kernel: str = "torch",
) -> VocabLoss:
    """The masked-LM part alone: features (M, H) of the masked positions only, labels (M,)."""
    order = torch.arange(labels.shape[0], device=labels.device)
    inputs = _Inputs(None, None, order, labels, terms, chunk_tokens, decoder.vocab_size, kernel)
    return VocabLoss(*_ChunkedVocabLoss.apply(features, decoder.weight, decoder.bias, inputs))


def vocab_loss_reference(
    student_features: Tensor,
    student: Decoder,
    teacher_features: Tensor,
    teacher: Decoder,
    masked_positions: Tensor,
    masked_labels: Tensor,
    terms: VocabLossTerms,
) -> VocabLoss:
    """The same by autograd over full (T, V) logits: what the fused versions are measured against."""
    size, temperature = student.vocab_size, terms.temperature
    wide = torch.promote_types(student_features.dtype, torch.float32)
    student_logits = (student_features @ student.weight[:size].T + student.bias[:size]).to(wide)
    teacher_logits = (teacher_features @ teacher.weight[:size].T + teacher.bias[:size]).to(wide).detach()
    divergence = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=-1),
        F.log_softmax(teacher_logits / temperature, dim=-1),
        reduction="sum",
        log_target=True,
    )
    distillation = temperature**2 / terms.attended * divergence
    mlm = F.cross_entropy(student_logits[masked_positions], masked_labels, reduction="sum") / terms.masked
    weighted = terms.weight_distillation * distillation + terms.weight_mlm * mlm
    return VocabLoss(weighted, distillation.detach(), mlm.detach())


class _Inputs(NamedTuple):
    """Everything of the walk that takes no gradient."""

    teacher_features: Tensor | None
    teacher: Decoder | None
    order: Tensor
    """(T,) row order of the walk, the masked ones first."""
    labels: Tensor
    """(M,) of the masked rows."""
    terms: VocabLossTerms
    chunk_tokens: int
    vocab_size: int
    kernel: str


class _Gradients(NamedTuple):
    """Of the loss times N, accumulated over chunks."""

    features: Tensor
    """(T, H) in the order of the input."""
    weight: Tensor
    """(V, H) fp32"""
    bias: Tensor
    """(V,) fp32"""


class _ChunkedVocabLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, inputs: _Inputs) -> tuple[Tensor, ...]:
        terms = inputs.terms
        wide = torch.promote_types(features.dtype, torch.float32)
        needs_gradient = any(ctx.needs_input_grad)
        decoder = Decoder(weight, bias, inputs.vocab_size)
        sides = _native_sides(features, decoder, inputs)
        is_native = inputs.kernel == "native" and needs_gradient and native.can_run(*sides)
        gradients: _Gradients | None
        if is_native:
            kl, nll, gradients = _walk_native(*sides, inputs)
        else:
            gradients = _new_gradients(features, weight, wide) if needs_gradient else None
            operands = [features] if inputs.teacher is None else [features, inputs.teacher.weight]
            with exact_16_bit_products(*operands):
                kl, nll = _walk(features, decoder, inputs, gradients, wide)
        distillation, mlm = kl * (terms.temperature**2 / terms.attended), nll / terms.masked
        weighted = terms.weight_distillation * distillation + terms.weight_mlm * mlm
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        ctx.scale, ctx.dtypes = 1.0 / terms.attended, (features.dtype, weight.dtype, bias.dtype)
        ctx.is_native = is_native
        ctx.mark_non_differentiable(distillation, mlm)
        return weighted, distillation, mlm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weighted: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_weighted * ctx.scale
        if ctx.is_native:
            return *(scale_to_bf16(grad, scale.item()) for grad in ctx.saved_tensors), None
        return *((grad * scale).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)), None


def _native_sides(
    features: Tensor, decoder: Decoder, inputs: _Inputs
) -> tuple[native.Projection, native.Projection | None]:
    student = native.Projection(features, decoder.weight, decoder.bias)
    if inputs.teacher is None or inputs.teacher_features is None:
        return student, None
    return student, native.Projection(inputs.teacher_features, inputs.teacher.weight, inputs.teacher.bias)


def _walk_native(
    student: native.Projection, teacher: native.Projection | None, inputs: _Inputs
) -> tuple[Tensor, Tensor, _Gradients]:
    """The walk in C++: all of it, the projections included."""
    terms = inputs.terms
    result = native.walk(
        student,
        teacher,
        inputs.order,
        inputs.labels,
        vocab_size=inputs.vocab_size,
        temperature=terms.temperature,
        kl_scale=terms.weight_distillation * terms.temperature,
        mlm_scale=terms.weight_mlm * terms.attended / terms.masked,
        chunk_tokens=inputs.chunk_tokens,
    )
    return result.kl, result.nll, _Gradients(result.grad_features, result.grad_weight, result.grad_bias)


def _new_gradients(features: Tensor, weight: Tensor, wide: torch.dtype) -> _Gradients:
    # bf16 has fp32's exponent range; fp16 would lose d(features) between here and the loss scale.
    features_dtype = wide if features.dtype == torch.float16 else features.dtype
    return _Gradients(
        torch.empty_like(features, dtype=features_dtype),
        torch.zeros_like(weight, dtype=wide),
        weight.new_zeros(weight.shape[0], dtype=wide),
    )


def _walk(
    features: Tensor, decoder: Decoder, inputs: _Inputs, gradients: _Gradients | None, wide: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sums of KL divergence and negative log-likelihood over all chunks; fills `gradients` on the way."""
    weight = as_operand(decoder.weight)
    teacher_weight = None if inputs.teacher is None else as_operand(inputs.teacher.weight)
    kl, nll = features.new_zeros(2, dtype=wide).unbind()
    chunk_tokens = inputs.chunk_tokens or CHUNK_TOKENS[features.device.type]
    for start in range(0, inputs.order.shape[0], chunk_tokens):
        rows = inputs.order[start : start + chunk_tokens]
        chunk = as_operand(features.index_select(0, rows))  # (C, H)
        logits = mm_fp32(chunk, weight.T)  # (C, V), the bias follows
        teacher_logits = None
        if inputs.teacher_features is not None and inputs.teacher is not None and teacher_weight is not None:
            teacher_chunk = as_operand(inputs.teacher_features.index_select(0, rows))
            teacher_logits = mm_fp32(teacher_chunk, teacher_weight.T)
        labels = inputs.labels[start : start + rows.shape[0]]  # shorter than the chunk, or empty, past the masked rows
        to_gradient = _logits_to_gradient_triton if inputs.kernel == "triton" else _logits_to_gradient
        grad_logits, chunk_kl, chunk_nll = to_gradient(logits, teacher_logits, labels, decoder, inputs)
        kl, nll = kl + chunk_kl, nll + chunk_nll
        if gradients is not None:
            _accumulate(gradients, rows, grad_logits, chunk, decoder.weight)
    return kl, nll


def _logits_to_gradient(
    logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, decoder: Decoder, inputs: _Inputs
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (C, V) without bias -> N * d(loss)/d(logits), zero in padding columns, and the losses of a chunk.

    Both logits are overwritten.
    """
    terms, num_masked = inputs.terms, labels.shape[0]
    real = logits.add_(decoder.bias.to(logits.dtype))[:, : inputs.vocab_size]
    nll = real.new_zeros(())
    masked_gradient = None
    if num_masked:
        log_probs = torch.log_softmax(real[:num_masked], dim=-1)
        picked = log_probs.gather(1, labels[:, None])
        nll = -picked.sum()
        masked_gradient = log_probs.exp_()
        masked_gradient.scatter_add_(1, labels[:, None], torch.full_like(picked, -1.0))
        masked_gradient.mul_(terms.weight_mlm * terms.attended / terms.masked)
    if teacher_logits is None or inputs.teacher is None:
        kl = real.new_zeros(())
        real.zero_()
    else:
        teacher_logits.add_(inputs.teacher.bias.to(logits.dtype))
        kl = _kl_and_difference(real, teacher_logits[:, : inputs.vocab_size], terms.temperature)
        real.mul_(terms.weight_distillation * terms.temperature)
    if masked_gradient is not None:
        real[:num_masked].add_(masked_gradient)
    logits[:, inputs.vocab_size :].zero_()
    return logits, kl, nll


def _logits_to_gradient_triton(
    logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, decoder: Decoder, inputs: _Inputs
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one kernel; the gradient comes in the dtype of the weight."""
    from model.kernels.triton_kernels.vocab_loss import logits_to_gradient  # Triton is not everywhere

    terms = inputs.terms
    return logits_to_gradient(
        logits,
        decoder.bias,
        teacher_logits,
        None if inputs.teacher is None else inputs.teacher.bias,
        labels,
        vocab_size=inputs.vocab_size,
        temperature=terms.temperature,
        kl_scale=terms.weight_distillation * terms.temperature,
        nll_scale=terms.weight_mlm * terms.attended / terms.masked,
        dtype=decoder.weight.dtype,
    )


def _kl_and_difference(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Sum over rows of KL(teacher || student) at `temperature`; `logits` is overwritten with p_student - p_teacher."""
    log_student = torch.log_softmax(logits.div_(temperature), dim=-1)
    log_teacher = torch.log_softmax(teacher_logits.div_(temperature), dim=-1)
    p_teacher = torch.exp(log_teacher, out=teacher_logits)
    p_student = torch.exp(log_student, out=logits)
    difference = p_student.sub_(p_teacher)
    # sum p_s - p_t is zero in exact arithmetic; adding it cancels, to first order, the rounding of both normalisers.
    return p_teacher.mul_(log_teacher.sub_(log_student)).sum() + difference.sum()


def _accumulate(gradients: _Gradients, rows: Tensor, grad_logits: Tensor, chunk: Tensor, weight: Tensor) -> None:
    """d(logits) (C, V) -> d(features) of these rows, dW and db."""
    narrow = grad_logits.to(weight.dtype)
    out_dtype = gradients.features.dtype
    grad_chunk = mm_fp32(narrow, weight) if out_dtype != weight.dtype else torch.mm(narrow, weight)
    gradients.features.index_copy_(0, rows, grad_chunk.to(out_dtype))
    add_mm_fp32(gradients.weight, (narrow if chunk.dtype == weight.dtype else grad_logits.to(chunk.dtype)).T, chunk)
    gradients.bias.add_(grad_logits.sum(0, dtype=gradients.bias.dtype))
