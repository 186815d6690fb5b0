"""Which layers a student gets and what it starts as."""

from pathlib import Path

import pytest
import torch

from model.hub import load_model
from model.student import default_layers, make_student
from tests.model.helpers import bert, packed


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(12, (0, 2, 4, 7, 9, 11)), (6, (0, 2, 5)), (4, (0, 3)), (3, (0,)), (2, (0,)), (1, (0,))],
)
def test_default_layers(depth: int, expected: tuple[int, ...]) -> None:
    assert default_layers(depth) == expected


def test_default_layers_span_any_depth() -> None:
    for depth in range(4, 49):
        layers = default_layers(depth)
        assert len(layers) == depth // 2
        assert (layers[0], layers[-1]) == (0, depth - 1)
        assert list(layers) == sorted(set(layers))


def test_student_starts_with_the_teachers_embeddings_layers_and_head(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    teacher = load_model(tmp_path)
    student = make_student(teacher, layers=(1, 3))
    token_ids, position_ids, *_ = packed()
    assert torch.equal(student.encoder.embed(token_ids, position_ids), teacher.encoder.embed(token_ids, position_ids))
    for new, old in ((0, 1), (1, 3)):
        for name, value in student.encoder.layers[new].state_dict().items():
            assert torch.equal(value, teacher.encoder.layers[old].state_dict()[name])
    assert torch.equal(student.head.bias, teacher.head.bias)
    assert student.config.num_layers == 2


def test_token_types_are_folded_so_that_embeddings_equal_the_published_model(tmp_path: Path) -> None:
    reference = bert()
    assert reference.bert.embeddings.token_type_embeddings.weight[0].abs().max() > 0.01
    reference.save_pretrained(tmp_path)
    student = make_student(load_model(tmp_path))
    token_ids, position_ids, *_ = packed((9,))
    with torch.no_grad():
        expected = reference.bert.embeddings(input_ids=token_ids[None])[0]
        torch.testing.assert_close(student.encoder.embed(token_ids, position_ids), expected, rtol=0, atol=1e-6)


def test_a_student_does_not_share_memory_with_its_teacher(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    teacher = load_model(tmp_path)
    before = teacher.encoder.word.weight.clone()
    with torch.no_grad():
        make_student(teacher).encoder.word.weight.add_(1.0)
    assert torch.equal(teacher.encoder.word.weight, before)


def test_random_start_is_reproducible_and_leaves_the_generator_alone(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    teacher = load_model(tmp_path)
    state = torch.get_rng_state()
    first, again, other = (make_student(teacher, init="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.encoder.word.weight, again.encoder.word.weight)
    assert not torch.equal(first.encoder.word.weight, other.encoder.word.weight)
    assert first.encoder.word.weight[131:].abs().max() == 0


def test_layers_outside_the_teacher_are_refused(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="layers 0 to 3, not 4"):
        make_student(load_model(tmp_path), layers=(0, 4))
