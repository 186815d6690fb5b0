"""Held-out figures against transformers with full logits, and the table."""

import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from data.batching import Corpus, FixedBatches, fixed_batches
from evaluation.compare import CompareConfig, as_table, compare
from evaluation.heldout import evaluate, frequency_loss
from evaluation.sections import named
from model.hub import load_model, save_model
from model.student import make_student
from tests.conftest import Toy
from tests.launch import run

CPU = torch.device("cpu")


def alone(sums: torch.Tensor) -> torch.Tensor:
    return sums


def batches_of(toy: Toy, rank: int = 0, num_ranks: int = 1) -> FixedBatches:
    corpus = Corpus.open(toy.heldout, max_length=40)
    return fixed_batches(
        corpus,
        num_sequences=24,
        sequences_per_batch=5,
        seed=0,
        rank=rank,
        num_ranks=num_ranks,
        mask_probability=0.15,
        mask_smoothing=0.7,
    )


@pytest.fixture
def student(toy: Toy, tmp_path: Path) -> Path:
    model = make_student(load_model(toy.teacher), dropout=0.0)
    save_model(model, tmp_path / "student", "distilbert", model.state_dict())
    return tmp_path / "student"


def test_figures_equal_transformers(toy: Toy, student: Path) -> None:
    """One sequence at a time through Hugging Face's own models, in float64, from the definitions."""
    temperature, batches = 2.0, batches_of(toy)
    teacher_model = AutoModelForMaskedLM.from_pretrained(toy.teacher).double().eval()
    student_model = AutoModelForMaskedLM.from_pretrained(student).double().eval()
    nll = correct = agree = kl = cosine = 0.0
    masked = attended = 0
    for batch in batches:
        bounds = batch.cu_seqlens.tolist()
        for start, stop in itertools.pairwise(bounds):
            ids = batch.token_ids[start:stop][None]
            with torch.no_grad():
                own = student_model(input_ids=ids, output_hidden_states=True)
                other = teacher_model(input_ids=ids, output_hidden_states=True)
            inside = (batch.masked_positions >= start) & (batch.masked_positions < stop)
            positions, labels = batch.masked_positions[inside] - start, batch.masked_labels[inside]
            logits, targets = own.logits[0], other.logits[0]
            nll -= torch.log_softmax(logits[positions], -1)[torch.arange(len(labels)), labels].sum().item()
            correct += (logits[positions].argmax(-1) == labels).sum().item()
            agree += (logits[positions].argmax(-1) == targets[positions].argmax(-1)).sum().item()
            soft = torch.softmax(targets / temperature, -1)
            kl += (soft * (soft.log() - torch.log_softmax(logits / temperature, -1))).sum().item()
            cosine += (
                (1 - torch.cosine_similarity(own.hidden_states[-1][0], other.hidden_states[-1][0], dim=-1)).sum().item()
            )
            masked, attended = masked + len(labels), attended + stop - start
    figures = evaluate(
        load_model(student), load_model(toy.teacher), batches, temperature=temperature, device=CPU, reduce=alone
    )
    assert (masked, attended) == (batches.masked, batches.attended)
    assert figures == pytest.approx(
        {
            "eval_mlm_loss": nll / masked,
            "eval_mlm_accuracy": correct / masked,
            "eval_perplexity": math.exp(nll / masked),
            "eval_distillation": temperature**2 * kl / attended,
            "eval_agreement": agree / masked,
            "eval_cosine": cosine / attended,
        },
        rel=1e-4,
    )


def test_figures_do_not_depend_on_the_number_of_ranks(toy: Toy, student: Path) -> None:
    teacher, model = load_model(toy.teacher), load_model(student)
    whole = evaluate(model, teacher, batches_of(toy), temperature=2.0, device=CPU, reduce=alone)
    shares: list[torch.Tensor] = []

    def keep(sums: torch.Tensor) -> torch.Tensor:
        shares.append(sums.clone())
        return sums

    for rank in range(3):
        evaluate(model, teacher, batches_of(toy, rank, 3), temperature=2.0, device=CPU, reduce=keep)
    total = torch.stack(shares).sum(0)
    together = evaluate(model, teacher, [], temperature=2.0, device=CPU, reduce=lambda _: total)
    assert together == pytest.approx(whole, rel=1e-9)


def test_frequency_loss_is_the_cross_entropy_of_the_unigram_distribution(toy: Toy) -> None:
    batches = batches_of(toy)
    counts = Corpus.open(toy.train, max_length=40).dataset.token_counts()
    probabilities = torch.tensor([max(int(count), 1) for count in counts], dtype=torch.float64)
    probabilities /= probabilities.sum()
    labels = torch.cat([batch.masked_labels for batch in batches])
    expected = -probabilities[labels].log().mean().item()
    assert frequency_loss(batches, counts, alone, CPU) == pytest.approx(expected, rel=1e-12)


def test_table_compares_teacher_and_students(toy: Toy, student: Path) -> None:
    config = CompareConfig(
        teacher=str(toy.teacher), students=(f"half={student}",), data=str(toy.heldout), max_length=40, sequences=24
    )
    figures = compare(config)
    assert list(figures) == ["teacher", "half"]
    assert figures["teacher"]["eval_agreement"] == 1.0
    assert abs(figures["teacher"]["eval_distillation"]) < 1e-6
    assert figures["half"]["parameters"] < figures["teacher"]["parameters"]
    assert all(row["sentences_per_second"] > 0 for row in figures.values())
    rows = as_table(figures).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert rows[2].startswith("| teacher |")


def test_students_are_named_or_refused(toy: Toy, student: Path) -> None:
    assert named(f"a={student}") == ("a", str(student))
    assert named(str(student)) == ("student", str(student))
    (student.parent / "lr=1").mkdir()
    assert named(str(student.parent / "lr=1")) == ("lr=1", str(student.parent / "lr=1"))
    twice = CompareConfig(teacher=str(toy.teacher), students=(str(student),) * 2, data=str(toy.heldout), max_length=40)
    with pytest.raises(ValueError, match="there is a 'student' already"):
        compare(twice)


def test_parameter_count_is_that_of_the_published_layout(toy: Toy, student: Path) -> None:
    published = AutoModelForMaskedLM.from_pretrained(student)
    assert load_model(student).config.num_parameters == sum(p.numel() for p in published.parameters())


def test_wrong_folder_is_one_message(toy: Toy) -> None:
    command = ["-m", "evaluation.compare", "--teacher", "none/such", "--students", "x", "--data", toy.heldout]
    result = run([sys.executable, *command], HF_HUB_OFFLINE="1")
    assert result.returncode == 2
    assert result.stdout.startswith("error: no model at 'none/such'")
