"""The triple loss and its gradients against an oracle in float64, written from the formulas of the paper."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from model.bert import Prediction
from model.config import ObjectiveConfig
from model.kernels.vocab_loss import Decoder, VocabLossTerms, vocab_loss, vocab_loss_reference
from model.objective import TripleLoss
from tests.model.helpers import relative_error

VOCAB, WIDTH = 317, 24


class Case(NamedTuple):
    hidden: Tensor
    features: Tensor
    weight: Tensor
    bias: Tensor
    teacher_hidden: Tensor
    teacher_features: Tensor
    teacher_weight: Tensor
    teacher_bias: Tensor
    positions: Tensor
    labels: Tensor


def make_case(num_tokens: int, masked_share: float = 0.15, distance: float | None = None, seed: int = 0) -> Case:
    """Realistic magnitudes (features after a layer norm, logits of a few units); `distance` puts the student that near
    its teacher."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * std

    rows = 320  # VOCAB padded to a multiple of 64; the padding must not matter, so it is not zero here
    teacher = [
        normal(num_tokens, WIDTH),
        normal(num_tokens, WIDTH),
        normal(rows, WIDTH, std=0.6),
        normal(rows, std=0.5),
    ]
    if distance is None:
        student = [
            normal(num_tokens, WIDTH),
            normal(num_tokens, WIDTH),
            normal(rows, WIDTH, std=0.6),
            normal(rows, std=0.5),
        ]
    else:
        student = [t + normal(*t.shape, std=distance) for t in teacher]
    positions = torch.randperm(num_tokens, generator=generator)[: round(masked_share * num_tokens)].sort().values
    labels = torch.randint(VOCAB, positions.shape, generator=generator)
    return Case(*student, *teacher, positions, labels)


def oracle(case: Case, config: ObjectiveConfig, attended: int, masked: int) -> tuple[list[Tensor], list[Tensor]]:
    """Losses (total, distillation, mlm, cosine) and gradients of (hidden, features, weight, bias), by definition."""
    inputs = [t.double().clone().requires_grad_() for t in case[:4]]
    hidden, features, weight, bias = inputs
    t_hidden, t_features, t_weight, t_bias = (t.double() for t in case[4:8])
    student = (features @ weight.T + bias)[:, :VOCAB]
    teacher = (t_features @ t_weight.T + t_bias)[:, :VOCAB]
    T = config.temperature  # noqa: N806
    p = torch.softmax(teacher / T, -1)
    distillation = T**2 / attended * (p * (torch.log(p) - torch.log_softmax(student / T, -1))).sum()
    picked = torch.log_softmax(student, -1)[case.positions, case.labels]
    mlm = -picked.sum() / masked
    cosines = (hidden * t_hidden).sum(-1) / (hidden.norm(dim=-1) * t_hidden.norm(dim=-1))
    cosine = (1 - cosines).sum() / attended
    total = config.weight_distillation * distillation + config.weight_mlm * mlm + config.weight_cosine * cosine
    total.backward()
    return [total, distillation, mlm, cosine], [t.grad for t in inputs if t.grad is not None]


def run(
    case: Case, config: ObjectiveConfig, dtype: torch.dtype, attended: int, masked: int, kernel: str = "torch"
) -> tuple[list, list]:
    """Losses and gradients as `oracle` orders them."""
    inputs = [t.to(dtype).clone().requires_grad_() for t in case[:4]]
    hidden, features, weight, bias = inputs
    teacher = [t.to(dtype) for t in case[4:8]]
    losses = TripleLoss(config, kernel)(
        Prediction(hidden, features, Decoder(weight, bias, VOCAB)),
        Prediction(teacher[0], teacher[1], Decoder(teacher[2], teacher[3], VOCAB)),
        case.positions,
        case.labels,
        attended=attended,
        masked=masked,
    )
    (losses.total * 3.0).backward()  # a loss scale must pass through
    return list(losses), [t.grad / 3.0 for t in inputs if t.grad is not None]


# 300 tokens: no multiple of the chunk of 256; 256: exactly one; 40: less than one.
@pytest.mark.parametrize("num_tokens", [300, 256, 40, 513])
@pytest.mark.parametrize("temperature", [2.0, 1.0, 3.7])
def test_losses_and_gradients_equal_the_oracle(num_tokens: int, temperature: float) -> None:
    case = make_case(num_tokens)
    config = ObjectiveConfig(temperature=temperature)
    expected, expected_grads = oracle(case, config, attended=4 * num_tokens, masked=700)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        losses, grads = run(case, config, dtype, 4 * num_tokens, 700)
        for got, want in zip(losses + grads, expected + expected_grads, strict=True):
            assert relative_error(got, want) <= bound


@pytest.mark.parametrize("distance", [1e-2, 1e-3])
def test_student_close_to_its_teacher(distance: float) -> None:
    """p_student - p_teacher cancels here: the regime every distillation ends in."""
    case = make_case(300, distance=distance)
    config = ObjectiveConfig(weight_mlm=0.0, weight_cosine=0.0)
    # fp32 inputs are what the model hands over, so the oracle starts from the rounded ones.
    rounded = Case(*(t.float() if t.is_floating_point() else t for t in case))
    expected, expected_grads = oracle(rounded, config, attended=1000, masked=100)
    losses, grads = run(rounded, config, torch.float32, 1000, 100)
    assert relative_error(losses[1], expected[1]) <= 1e-3
    for got, want in zip(grads[1:], expected_grads[1:], strict=True):
        assert relative_error(got, want) <= 1e-6 / distance


@pytest.mark.parametrize("distance", [0.1, 0.02])
def test_bf16_inputs_keep_the_gradient_where_rounded_logits_lose_it(distance: float) -> None:
    case = make_case(300, distance=distance)
    rounded = Case(*(t.bfloat16() if t.is_floating_point() else t for t in case))
    config = ObjectiveConfig(weight_mlm=0.0, weight_cosine=0.0)
    expected_losses, expected = oracle(rounded, config, attended=1000, masked=100)
    losses, grads = run(rounded, config, torch.bfloat16, 1000, 100)
    inputs = [t.clone().requires_grad_() for t in rounded[1:4]]
    terms = VocabLossTerms(temperature=2.0, weight_distillation=5.0, weight_mlm=0.0, attended=1000.0, masked=100.0)
    plain = vocab_loss_reference(
        inputs[0],
        Decoder(inputs[1], inputs[2], VOCAB),
        rounded.teacher_features,
        Decoder(rounded.teacher_weight, rounded.teacher_bias, VOCAB),
        case.positions,
        case.labels,
        terms,
    )
    plain.weighted.backward()
    assert relative_error(losses[1], expected_losses[1]) <= 1e-4
    for got, tensor, want in zip(grads[1:], inputs, expected[1:], strict=True):
        assert tensor.grad is not None
        # 2^-9 is the rounding of the 16-bit gradient itself; logits rounded to bf16 are many times worse.
        assert relative_error(got, want) <= 5e-3
        assert relative_error(tensor.grad, want) > 4 * relative_error(got, want)


def test_no_masked_token_in_a_chunk_or_at_all() -> None:
    for share in (0.02, 0.0):
        case = make_case(600, masked_share=share)
        config = ObjectiveConfig()
        expected, expected_grads = oracle(case, config, attended=600, masked=50)
        losses, grads = run(case, config, torch.float64, 600, 50)
        for got, want in zip(losses + grads, expected + expected_grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_every_token_masked() -> None:
    case = make_case(300, masked_share=1.0)
    expected, expected_grads = oracle(case, ObjectiveConfig(), attended=300, masked=300)
    losses, grads = run(case, ObjectiveConfig(), torch.float64, 300, 300)
    for got, want in zip(losses + grads, expected + expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 64, 300, 1000])
def test_the_chunk_size_changes_nothing(chunk_tokens: int) -> None:
    case = make_case(300)
    terms = VocabLossTerms(temperature=2.0, weight_distillation=5.0, weight_mlm=2.0, attended=300.0, masked=45.0)
    results = []
    for fused in (True, False):
        inputs = [t.clone().requires_grad_() for t in case[1:4]]
        student, teacher = Decoder(inputs[1], inputs[2], VOCAB), Decoder(case.teacher_weight, case.teacher_bias, VOCAB)
        arguments = (inputs[0], student, case.teacher_features, teacher, case.positions, case.labels, terms)
        loss = vocab_loss(*arguments, chunk_tokens=chunk_tokens) if fused else vocab_loss_reference(*arguments)
        loss.weighted.backward()
        results.append([*loss, *(t.grad for t in inputs)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


def test_padding_rows_of_the_vocabulary_get_no_gradient() -> None:
    _, grads = run(make_case(300), ObjectiveConfig(), torch.float32, 300, 45)
    assert grads[2][VOCAB:].abs().max() == 0
    assert grads[3][VOCAB:].abs().max() == 0


def test_shares_of_micro_batches_add_up_to_the_whole() -> None:
    """With global denominators the split must not matter, however uneven it is."""
    case = make_case(400)
    config = ObjectiveConfig()
    whole, whole_grads = run(case, config, torch.float64, 400, 60)
    cut = 90
    first = case.positions < cut
    total = torch.zeros(4, dtype=torch.float64)
    weight_grad = torch.zeros_like(whole_grads[2])
    for rows, chosen, offset in ((slice(0, cut), first, 0), (slice(cut, None), ~first, cut)):
        part = case._replace(
            hidden=case.hidden[rows],
            features=case.features[rows],
            teacher_hidden=case.teacher_hidden[rows],
            teacher_features=case.teacher_features[rows],
            positions=case.positions[chosen] - offset,
            labels=case.labels[chosen],
        )
        losses, grads = run(part, config, torch.float64, 400, 60)
        total += torch.stack(losses).detach()
        weight_grad += grads[2]
    torch.testing.assert_close(total, torch.stack(whole).detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(weight_grad, whole_grads[2], rtol=1e-11, atol=1e-14)


def test_distillation_on_masked_positions_alone() -> None:
    """KL over the masked positions and their count; the cosine stays on all attended ones."""
    case, config = make_case(300), ObjectiveConfig(distil_on="masked")
    inputs = [t.clone().requires_grad_() for t in case[:4]]
    hidden, features, weight, bias = inputs
    rows = TripleLoss(config).predict_at(case.positions)
    assert rows is case.positions
    losses = TripleLoss(config)(
        Prediction(hidden, features[rows], Decoder(weight, bias, VOCAB)),
        Prediction(
            case.teacher_hidden, case.teacher_features[rows], Decoder(case.teacher_weight, case.teacher_bias, VOCAB)
        ),
        case.positions,
        case.labels,
        attended=1000,
        masked=140,
    )
    losses.total.backward()
    leaves = [t.clone().requires_grad_() for t in case[:4]]
    student, teacher = (
        torch.log_softmax((f @ w.T + b)[rows, :VOCAB] / 2.0, -1)
        for f, w, b in (leaves[1:], (case.teacher_features, case.teacher_weight, case.teacher_bias))
    )
    distillation = 4.0 / 140 * (teacher.exp() * (teacher - student)).sum()
    logits = (leaves[1] @ leaves[2].T + leaves[3])[rows, :VOCAB]
    mlm = torch.nn.functional.cross_entropy(logits, case.labels, reduction="sum") / 140
    cosine = (1 - torch.cosine_similarity(leaves[0], case.teacher_hidden, dim=-1)).sum() / 1000
    total = 5.0 * distillation + 2.0 * mlm + cosine
    total.backward()
    for got, want in zip(losses, (total, distillation, mlm, cosine), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    for own, leaf in zip(inputs, leaves, strict=True):
        torch.testing.assert_close(own.grad, leaf.grad, rtol=1e-11, atol=1e-14)


def test_the_head_predicts_everywhere_unless_only_masked_positions_count() -> None:
    positions = torch.tensor([1, 2])
    assert TripleLoss(ObjectiveConfig()).predict_at(positions) is None
    assert TripleLoss(ObjectiveConfig(objective="mlm")).predict_at(positions) is positions


def test_masked_lm_alone_is_cross_entropy() -> None:
    case = make_case(300)
    inputs = [t.clone().requires_grad_() for t in (case.features[case.positions], case.weight, case.bias)]
    losses = TripleLoss(ObjectiveConfig(objective="mlm")).masked_lm(
        Prediction(inputs[0], inputs[0], Decoder(inputs[1], inputs[2], VOCAB)), case.labels, masked=200
    )
    losses.total.backward()
    check = [t.detach().clone().requires_grad_() for t in inputs]
    logits = (check[0] @ check[1].T + check[2])[:, :VOCAB]
    expected = torch.nn.functional.cross_entropy(logits, case.labels, reduction="sum") / 200
    expected.backward()
    torch.testing.assert_close(losses.total, expected)
    for got, want in zip(inputs, check, strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"temperature": 0.0}, "--temperature 0.0"), ({"weight_mlm": -1.0}, "--weight_mlm -1.0")],
)
def test_impossible_objectives_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**change)
