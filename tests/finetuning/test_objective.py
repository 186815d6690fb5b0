"""The losses of fine-tuning and of a second distillation, against numpy in float64."""

import numpy as np
import pytest
import torch

from evaluation.tasks import Kind
from finetuning.objective import Weights, components, span_logits, total

RNG = np.random.default_rng(0)
B, C, L, H = 5, 3, 7, 8


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    p, q = softmax(teacher), softmax(student)
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_classes(temperature: float) -> None:
    student, teacher = 3 * RNG.standard_normal((B, C)), 3 * RNG.standard_normal((B, C))
    hidden, wanted = RNG.standard_normal((B, H)), RNG.standard_normal((B, H))
    labels = RNG.integers(0, C, B)
    weights = Weights(distillation=0.3, task=0.6, cosine=0.9, temperature=temperature)
    batch = {
        "labels": torch.tensor(labels),
        "teacher_logits": torch.tensor(teacher),
        "teacher_pooled": torch.tensor(wanted),
    }
    found = components(Kind.CLASSIFICATION, torch.tensor(student), batch, weights, torch.tensor(hidden))
    task = -np.log(softmax(student)[np.arange(B), labels]).mean()
    soft = temperature**2 * kl(teacher / temperature, student / temperature).mean()
    cosine = 1 - ((hidden * wanted).sum(1) / np.linalg.norm(hidden, axis=1) / np.linalg.norm(wanted, axis=1)).mean()
    expected = {"task": task, "distillation": soft, "cosine": cosine}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)
    assert float(total(found, weights)) == pytest.approx(0.6 * task + 0.3 * soft + 0.9 * cosine, rel=1e-5)


def test_a_regression_follows_labels_and_teacher() -> None:
    student, teacher, labels = RNG.standard_normal((B, 1)), RNG.standard_normal((B, 1)), RNG.standard_normal(B)
    batch = {"labels": torch.tensor(labels), "teacher_logits": torch.tensor(teacher)}
    weights = Weights(distillation=1.0, task=1.0, temperature=5.0)
    found = components(Kind.REGRESSION, torch.tensor(student), batch, weights, None)
    assert found["task"].item() == pytest.approx(((student[:, 0] - labels) ** 2).mean(), rel=1e-5)
    assert found["distillation"].item() == pytest.approx(((student - teacher) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("padding", [0, 4])
def test_spans_do_not_depend_on_padding(padding: int) -> None:
    lengths = [7, 3, 5, 7, 2]
    student, teacher = (2 * RNG.standard_normal((B, 2, L)) for _ in range(2))
    positions = np.array([[RNG.integers(0, n), RNG.integers(0, n)] for n in lengths])
    weights = Weights(distillation=1.0, task=1.0, temperature=2.0)
    rows = [(student[i, :, :n], teacher[i, :, :n], positions[i]) for i, n in enumerate(lengths)]
    task = np.mean([[-np.log(softmax(s)[k, at[k]]) for k in (0, 1)] for s, _, at in rows])
    soft = 4 * np.mean([kl(t / 2, s / 2) for s, t, _ in rows])
    mask = torch.tensor([[int(i < n) for i in range(L + padding)] for n in lengths])
    wide = np.full((B, 2, L + padding), 99.0)
    wide[:, :, :L] = student
    targets = np.full((B, 2, L + padding), -np.inf)
    for i, n in enumerate(lengths):
        targets[i, :, :n] = teacher[i, :, :n]
    given = torch.tensor(wide, requires_grad=True)
    batch = {
        "start_positions": torch.tensor(positions[:, 0]),
        "end_positions": torch.tensor(positions[:, 1]),
        "teacher_logits": torch.tensor(targets),
    }
    logits = span_logits(given[:, 0], given[:, 1], mask)
    found = components(Kind.SPAN, logits, batch, weights, None)
    assert found["task"].item() == pytest.approx(task, rel=1e-5)
    assert found["distillation"].item() == pytest.approx(soft, rel=1e-5)
    total(found, weights).backward()
    assert torch.isfinite(given.grad).all()
    assert (given.grad[~mask.bool()[:, None].expand_as(given)] == 0).all()


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.tensor(RNG.standard_normal((B, C)), requires_grad=True)
    weights = Weights(distillation=1.0, task=0.0, temperature=2.0)
    found = components(Kind.CLASSIFICATION, logits, {"teacher_logits": logits.detach()}, weights, None)
    assert list(found) == ["distillation"]
    total(found, weights).backward()
    assert found["distillation"].item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6
