"""The vocabulary loss in C++ against plain references in float64."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from model.kernels.native import vocab_loss as native_vocab_loss
from model.kernels.native.attention import native_attention
from model.kernels.native.library import obstacle
from model.kernels.vocab_loss import Decoder, VocabLossTerms, vocab_loss, vocab_loss_reference
from tests.launch import ROOT
from tests.model.test_native import assert_near, normal

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

VOCAB_ROWS, VOCAB_SIZE = 320, 317


def vocabulary_case(tokens: int, width: int, teacher_width: int, distance: float) -> tuple:
    """Both sides as (features, weight, bias), positions and labels; `distance` of the student from its teacher."""
    teacher = (normal(tokens, teacher_width), normal(VOCAB_ROWS, teacher_width, std=0.6), normal(VOCAB_ROWS, std=0.5))
    if teacher_width == width:
        student = tuple((t.float() + distance * normal(*t.shape, seed=9).float()).bfloat16() for t in teacher)
    else:
        student = normal(tokens, width, seed=5), normal(VOCAB_ROWS, width, seed=6, std=0.4), normal(VOCAB_ROWS, seed=7)
    generator = torch.Generator().manual_seed(tokens)
    positions = torch.randperm(tokens, generator=generator)[: round(0.3 * tokens)].sort().values
    return student, teacher, positions, torch.randint(VOCAB_SIZE, positions.shape, generator=generator)


# 48 tokens a chunk: 100 tokens are three, the last of which is not full; 5: less than a vector.
@pytest.mark.parametrize(
    ("tokens", "width", "teacher_width", "chunk"),
    [(100, 32, 32, 48), (100, 32, 64, 0), (5, 16, 16, 0), (130, 304, 304, 0), (61, 48, 48, 16)],
)
@pytest.mark.parametrize("temperature", [2.0, 1.0, 3.7])
def test_vocab_loss(tokens: int, width: int, teacher_width: int, chunk: int, temperature: float) -> None:
    student, teacher, positions, labels = vocabulary_case(tokens, width, teacher_width, distance=0.3)
    terms = VocabLossTerms(
        temperature=temperature, weight_distillation=5.0, weight_mlm=2.0, attended=3.0 * tokens, masked=40.0
    )
    results = []
    for sides in (student, teacher), ([t.double() for t in student], [t.double() for t in teacher]):
        mine = [t.clone().requires_grad_() for t in sides[0]]
        loss = vocab_loss if sides[0] is student else vocab_loss_reference
        options = {"chunk_tokens": chunk, "kernel": "native"} if sides[0] is student else {}
        taught = Decoder(sides[1][1], sides[1][2], VOCAB_SIZE)
        result = loss(
            mine[0], Decoder(mine[1], mine[2], VOCAB_SIZE), sides[1][0], taught, positions, labels, terms, **options
        )
        (result.weighted * 3.0).backward()  # a loss scale must pass through
        results.append((result, [t.grad for t in mine]))
    (got, grads), (expected, wide_grads) = results
    for mine, reference in zip(got, expected, strict=True):
        assert_near(mine, reference, 1e-5)
    for mine, reference in zip(grads, wide_grads, strict=True):
        assert_near(mine, reference)
        assert mine[VOCAB_SIZE:].abs().max() == 0 if mine.shape[0] == VOCAB_ROWS else True


@pytest.mark.parametrize("distance", [0.1, 0.02])
def test_vocab_loss_near_its_teacher_is_as_exact_as_in_fp32(distance: float) -> None:
    """bf16 inputs, the student near its teacher: the error is that of two roundings to bf16, of d(logits) and of the
    gradient itself, where autograd in fp32 has the second alone; rounded logits would be many times worse."""
    student, teacher, positions, labels = vocabulary_case(300, 96, 96, distance)
    terms = VocabLossTerms(temperature=2.0, weight_distillation=5.0, weight_mlm=0.0, attended=300.0, masked=1.0)
    grads = {}
    for name, dtype in (("native", torch.bfloat16), ("reference", torch.float32), ("oracle", torch.float64)):
        mine = [t.to(dtype).clone().requires_grad_() for t in student]
        taught = [t.to(dtype) for t in teacher]
        arguments = (
            mine[0],
            Decoder(mine[1], mine[2], VOCAB_SIZE),
            taught[0],
            Decoder(taught[1], taught[2], VOCAB_SIZE),
        )
        if name == "native":
            result = vocab_loss(*arguments, positions, labels, terms, kernel="native")
        else:
            result = vocab_loss_reference(*arguments, positions, labels, terms)
        result.weighted.backward()
        grads[name] = [t.grad for t in mine]
    for mine, reference, oracle in zip(*grads.values(), strict=True):
        assert_near(mine, oracle, 1.6 * ((reference.bfloat16().double() - oracle).norm() / oracle.norm()).item())


def test_masked_lm_alone() -> None:
    student, _, _, _ = vocabulary_case(40, 32, 32, 0.3)
    labels = torch.arange(40) % VOCAB_SIZE
    result = native_vocab_loss.walk(
        native_vocab_loss.Projection(*student),
        None,
        torch.arange(40),
        labels,
        vocab_size=VOCAB_SIZE,
        temperature=1.0,
        kl_scale=0.0,
        mlm_scale=1.0,
    )
    wide = [t.double().requires_grad_() for t in student]
    expected = F.cross_entropy((wide[0] @ wide[1].T + wide[2])[:, :VOCAB_SIZE], labels, reduction="sum")
    expected.backward()
    assert_near(result.nll, expected, 1e-6)
    for mine, reference in zip(result[2:], wide, strict=True):
        assert_near(mine, reference.grad)


def test_the_chunk_fills_its_workspace_and_no_more() -> None:
    for tokens, rows in ((1024, 30528), (4096, 30528), (100, 30528), (5000, 250048)):
        chunk = native_vocab_loss.chunk_size(tokens, rows)
        assert chunk % 48 == 0
        assert chunk == 48 or 8 * rows * chunk <= native_vocab_loss.WORKSPACE_BYTES
    assert native_vocab_loss.chunk_size(4096, 30528) == 240


def test_a_nan_is_not_lost() -> None:
    """What is not finite must reach the gradients, where it is noticed and the update skipped."""
    student, teacher, positions, labels = vocabulary_case(40, 32, 32, 0.3)
    student[0][3, 5] = float("nan")
    mine = [t.clone().requires_grad_() for t in student]
    terms = VocabLossTerms(temperature=2.0, weight_distillation=5.0, weight_mlm=2.0, attended=40.0, masked=12.0)
    taught = Decoder(teacher[1], teacher[2], VOCAB_SIZE)
    arguments = (mine[0], Decoder(mine[1], mine[2], VOCAB_SIZE), teacher[0], taught, positions, labels, terms)
    vocab_loss(*arguments, kernel="native").weighted.backward()
    assert all(t.grad.isnan().any() for t in mine)
    qkv = normal(20, 3, 1, 16)
    qkv[4, 1, 0, 2] = float("nan")
    assert native_attention(qkv, torch.tensor([0, 20], dtype=torch.int32), 0.0).isnan().all()


def test_a_weight_of_zero_still_reports_the_loss() -> None:
    student, teacher, positions, labels = vocabulary_case(20, 32, 32, 0.3)
    terms = VocabLossTerms(temperature=2.0, weight_distillation=0.0, weight_mlm=2.0, attended=20.0, masked=6.0)
    results = []
    for kernel in ("native", "torch"):
        mine = [t.clone().requires_grad_() for t in student]
        arguments = (mine[0], Decoder(mine[1], mine[2], VOCAB_SIZE), teacher[0], Decoder(*teacher[1:], VOCAB_SIZE))
        results.append(vocab_loss(*arguments, positions, labels, terms, kernel=kernel))
    assert_near(results[0].distillation, results[1].distillation, 1e-5)


def test_more_threads_than_come_or_than_there_is_work_for() -> None:
    """A limit of the runtime grants fewer threads than asked for; a small vocabulary has fewer tiles than threads."""
    script = """
import torch
from model.kernels.native.vocab_loss import Projection, walk
torch.manual_seed(0)
side = Projection(*(torch.randn(*shape).bfloat16() for shape in ((20, 16), (64, 16), (64,))))
constants = {"vocab_size": 60, "temperature": 2.0, "kl_scale": 1.0, "mlm_scale": 1.0}
results = []
for threads in (1, 2, 12):
    torch.set_num_threads(threads)
    results.append(walk(side, None, torch.arange(20), torch.arange(20), **constants))
for result in results[1:]:
    for got, expected in zip(result, results[0]):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
"""
    for limit in ("1", "64"):
        environment = os.environ | {"OMP_THREAD_LIMIT": limit}
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)


def test_the_number_of_threads_changes_nothing_but_the_order_of_sums() -> None:
    student, teacher, positions, labels = vocabulary_case(100, 32, 32, 0.3)
    terms = VocabLossTerms(temperature=2.0, weight_distillation=5.0, weight_mlm=2.0, attended=100.0, masked=30.0)
    before, grads = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        mine = [t.clone().requires_grad_() for t in student]
        taught = Decoder(teacher[1], teacher[2], VOCAB_SIZE)
        arguments = (mine[0], Decoder(mine[1], mine[2], VOCAB_SIZE), teacher[0], taught)
        vocab_loss(*arguments, positions, labels, terms, kernel="native").weighted.backward()
        grads.append([t.grad.double() for t in mine])
    torch.set_num_threads(before)
    for other in grads[1:]:
        for got, expected in zip(other, grads[0], strict=True):
            assert_near(got, expected, 2**-9)
