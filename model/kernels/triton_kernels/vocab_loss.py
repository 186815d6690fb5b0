"""The logits of a chunk -> its losses and d(logits), a program a row, two passes over the row.

Pass 1 finds the normalisers of student and teacher at once. Every lane keeps its own running maximum and sum, so that a
logit costs one exponential, exp(-|z - maximum|), and nothing is reduced before the row ends; at T = 2 its square is the
T = 1 term that the masked-LM loss needs. Pass 2 reads the row again, from the level-2 cache if the device runs few rows at
a time, and writes d(logits) in the dtype of the products that follow.

With y the difference of the log probabilities, p_student - p_teacher = p_teacher * (e^y - 1), and a term of the
divergence is p_teacher * (e^y - 1 - y). For small y both come from a polynomial, so that nothing cancels where student
and teacher agree.

Shapes: C rows of a chunk, V columns, of which the first `vocab_size` are real, M masked rows, the first ones.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, NUM_WARPS = 4096, 32
"""One program fills a multiprocessor: the 132 rows at work on an H200 are 32 MB of BERT's logits, less than its level-2
cache, so that pass 2 finds what pass 1 read."""
LARGEST = tl.constexpr(3.0e38)


def logits_to_gradient(
    logits: Tensor,
    bias: Tensor,
    teacher_logits: Tensor | None,
    teacher_bias: Tensor | None,
    labels: Tensor,
    *,
    vocab_size: int,
    temperature: float,
    kl_scale: float,
    nll_scale: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """logits (C, V) fp32 without bias, labels (M,) -> d(logits) (C, V), sum of KL (), sum of negative log-likelihood ().

    d(logits) = kl_scale * (p_student - p_teacher) at `temperature`, plus nll_scale * (p - one-hot) in masked rows, zero in
    padding columns; written in `dtype`, over `logits` where that is fp32.
    """
    num_rows, width = logits.shape
    grad = logits if dtype == logits.dtype else torch.empty_like(logits, dtype=dtype)
    kl, nll = logits.new_empty((2, num_rows)).unbind()
    has_teacher = teacher_logits is not None
    teacher = (teacher_logits, teacher_bias) if has_teacher else (logits, bias)
    _row[(num_rows,)](
        logits, bias, *teacher, labels, grad, kl, nll, labels.shape[0], vocab_size, width, 1.0 / temperature,
        temperature, kl_scale, nll_scale, has_teacher, _power(temperature), **tile(width),
    )  # fmt: skip
    return grad, kl.sum(), nll.sum()


def tile(width: int) -> dict[str, Any]:
    """Columns of a step and warps of a program."""
    block = min(BLOCK, triton.next_power_of_2(width))
    return {"BLOCK": block, "num_warps": max(4, NUM_WARPS * block // BLOCK)}


def _power(temperature: float) -> int:
    """exp(z / T) to this power is exp(z); 0 where that is no small whole number."""
    return int(temperature) if temperature in (1.0, 2.0) else 0


@triton.jit
def _at_one(exponential, exponent, temperature, POWER: tl.constexpr):
    """exp(T * exponent), given exp(exponent)."""
    if POWER == 1:
        return exponential
    elif POWER == 2:
        return exponential * exponential
    else:
        return tl.exp(exponent * temperature)


@triton.jit
def _scaled(logits_ptr, bias_ptr, columns, vocab_size, width, inverse_temperature, POLICY: tl.constexpr):
    """(logits + bias) / T of a row, minus infinity beyond the vocabulary."""
    # Padding is read and dropped: a mask that ended at the vocabulary would forbid loads of 16 bytes.
    present = columns < width
    logits = tl.load(logits_ptr + columns, mask=present, other=0.0, eviction_policy=POLICY)
    bias = tl.load(bias_ptr + columns, mask=present, other=0.0, eviction_policy="evict_last").to(tl.float32)
    return tl.where(columns < vocab_size, (logits + bias) * inverse_temperature, float("-inf"))


@triton.jit
def _include(top, total, total_one, scaled, temperature, POWER: tl.constexpr):
    """Each lane's running maximum, sum of exp(. - maximum), and the same sum at T = 1, with another logit in."""
    distance = scaled - top
    exponent = -tl.abs(distance)
    exponential = tl.exp(exponent)
    at_one = _at_one(exponential, exponent, temperature, POWER)
    is_higher = distance > 0
    total = tl.where(is_higher, total * exponential + 1.0, total + exponential)
    total_one = tl.where(is_higher, total_one * at_one + 1.0, total_one + at_one)
    return tl.maximum(top, scaled), total, total_one


@triton.jit
def _merge(top, total, total_one, temperature, POWER: tl.constexpr):
    """The lanes' maxima and sums -> the row's."""
    highest = tl.max(top, axis=0)
    exponent = top - highest
    exponential = tl.exp(exponent)
    at_one = _at_one(exponential, exponent, temperature, POWER)
    return highest, tl.sum(total * exponential, axis=0), tl.sum(total_one * at_one, axis=0)


@triton.jit
def _difference(p_student, p_teacher, y):
    """p_student - p_teacher and p_teacher * (e^y - 1 - y), where p_student = p_teacher * e^y."""
    tail = 1.0 + y * (1 / 4) * (1.0 + y * (1 / 5) * (1.0 + y * (1 / 6)))
    beyond_y = 0.5 * y * y * (1.0 + y * (1 / 3) * tail)
    is_near = tl.abs(y) < 0.25  # the next term of the series is then below 2^-24 of the result
    difference = tl.where(is_near, p_teacher * (y + beyond_y), p_student - p_teacher)
    return difference, tl.where(is_near, p_teacher * beyond_y, difference - p_teacher * y)


@triton.jit
def _normalisers(
    logits_ptr, bias_ptr, teacher_ptr, teacher_bias_ptr, vocab_size, width, inverse_temperature, temperature,
    HAS_TEACHER: tl.constexpr, POWER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pass 1: maximum and sum of the student, its sum at T = 1, maximum and sum of the teacher."""
    top, teacher_top = tl.full((BLOCK,), -LARGEST, tl.float32), tl.full((BLOCK,), -LARGEST, tl.float32)
    total, total_one = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    teacher_total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocab_size, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        # Kept for pass 2 as long as the cache can.
        student = _scaled(logits_ptr, bias_ptr, columns, vocab_size, width, inverse_temperature, "evict_last")
        if HAS_TEACHER:
            teacher = _scaled(
                teacher_ptr, teacher_bias_ptr, columns, vocab_size, width, inverse_temperature, "evict_last"
            )
            teacher_top, teacher_total, _ = _include(teacher_top, teacher_total, teacher_total, teacher, temperature, 1)
        top, total, total_one = _include(top, total, total_one, student, temperature, POWER)
    highest, sum_student, sum_one = _merge(top, total, total_one, temperature, POWER)
    teacher_highest, sum_teacher, _ = _merge(teacher_top, teacher_total, teacher_total, temperature, 1)
    return highest, sum_student, sum_one, teacher_highest, sum_teacher


@triton.jit(do_not_specialize=["num_masked"])  # it differs from chunk to chunk
def _row(
    logits_ptr, bias_ptr, teacher_ptr, teacher_bias_ptr, labels_ptr, grad_ptr, kl_ptr, nll_ptr, num_masked, vocab_size,
    width, inverse_temperature, temperature, kl_scale, nll_scale, HAS_TEACHER: tl.constexpr, POWER: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    is_masked = row < num_masked
    first = row.to(tl.int64) * width
    logits_ptr += first
    teacher_ptr += first
    # Before pass 1, whose reductions wait for all warps: pass 2 may overwrite this logit.
    label = tl.load(labels_ptr + row, mask=is_masked, other=-1)
    label_logit = tl.load(logits_ptr + label, mask=is_masked, other=0.0)
    label_logit += tl.load(bias_ptr + label, mask=is_masked, other=0.0).to(tl.float32)
    highest, total, total_one, teacher_highest, teacher_total = _normalisers(
        logits_ptr, bias_ptr, teacher_ptr, teacher_bias_ptr, vocab_size, width, inverse_temperature, temperature,
        HAS_TEACHER, POWER, BLOCK,
    )  # fmt: skip
    nll = highest * temperature + tl.log(total_one) - label_logit
    tl.store(nll_ptr + row, tl.where(is_masked, nll, 0.0))
    # The teacher's log normaliser less the student's: without the detour over two large sums.
    shift = teacher_highest - highest + tl.log(teacher_total / total)
    masked_scale = tl.where(is_masked, nll_scale, 0.0)
    of_total, of_total_one, of_teacher_total = 1.0 / total, 1.0 / total_one, 1.0 / teacher_total
    divergence = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab_size
        student = _scaled(logits_ptr, bias_ptr, columns, vocab_size, width, inverse_temperature, "evict_first")
        exponential = tl.exp(student - highest)
        at_one = _at_one(exponential, student - highest, temperature, POWER)
        grad = masked_scale * (at_one * of_total_one - tl.where(columns == label, 1.0, 0.0))
        if HAS_TEACHER:
            teacher = _scaled(
                teacher_ptr, teacher_bias_ptr, columns, vocab_size, width, inverse_temperature, "evict_first"
            )
            p_teacher = tl.exp(teacher - teacher_highest) * of_teacher_total
            difference, term = _difference(exponential * of_total, p_teacher, student - teacher + shift)
            grad += kl_scale * difference
            divergence += tl.where(inside, term, 0.0)
        grad = tl.where(inside, grad, 0.0)
        tl.store(grad_ptr + first + columns, grad.to(grad_ptr.dtype.element_ty), mask=columns < width)
    tl.store(kl_ptr + row, tl.sum(divergence, axis=0))
