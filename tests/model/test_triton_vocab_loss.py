"""The fused vocabulary loss against the oracle in float64, and against what plain torch loses."""

import pytest
import torch

from model.bert import Prediction
from model.config import ObjectiveConfig
from model.kernels.triton_kernels import vocab_loss
from model.kernels.vocab_loss import Decoder
from model.objective import TripleLoss
from tests.model.helpers import DEVICE, relative_error
from tests.model.test_objective import VOCAB, Case, make_case, oracle, run

GRADIENTS = ("features", "weight", "bias")
KL_ALONE = ObjectiveConfig(weight_mlm=0.0, weight_cosine=0.0)


def on_device(case: Case, dtype: torch.dtype = torch.float32) -> Case:
    return Case(*(t.to(DEVICE, dtype if t.is_floating_point() else None) for t in case))


@pytest.mark.parametrize("temperature", [2.0, 1.0, 3.7])
@pytest.mark.parametrize("block", [128, 4096])  # several steps a row, the last one not full; one step
def test_losses_and_gradients_equal_the_oracle(temperature: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocab_loss, "BLOCK", block)
    case = on_device(make_case(40))
    config = ObjectiveConfig(temperature=temperature)
    expected, expected_grads = oracle(case, config, attended=160, masked=70)
    losses, grads = run(case, config, torch.float32, 160, 70, "triton")
    for got, want in zip(losses + grads, expected + expected_grads, strict=True):
        assert relative_error(got, want) <= 2e-6
    assert grads[2][VOCAB:].abs().max() == grads[3][VOCAB:].abs().max() == 0  # padding rows of the vocabulary


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_token_masked_and_all_of_them(share: float) -> None:
    case = on_device(make_case(20, masked_share=share))
    expected, expected_grads = oracle(case, ObjectiveConfig(), attended=20, masked=20)
    losses, grads = run(case, ObjectiveConfig(), torch.float32, 20, 20, "triton")
    for got, want in zip(losses + grads, expected + expected_grads, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", [1e-2, 1e-3, 1e-4])
def test_no_worse_than_plain_torch_near_the_teacher(distance: float) -> None:
    case = on_device(make_case(30, distance=distance))
    expected, expected_grads = oracle(case, KL_ALONE, attended=1000, masked=100)
    errors = {}
    for kernel in ("torch", "triton"):
        losses, grads = run(case, KL_ALONE, torch.float32, 1000, 100, kernel)
        errors[kernel] = [relative_error(losses[1], expected[1])]
        errors[kernel] += [relative_error(g, e) for g, e in zip(grads[1:], expected_grads[1:], strict=True)]
    assert errors["triton"][0] <= 1e-7 / distance
    for own, plain in zip(errors["triton"][1:], errors["torch"][1:], strict=True):
        assert own <= 1.05 * plain  # both begin with the same product's rounding


ROUNDING = {torch.bfloat16: 4e-3} | ({torch.float16: 1e-3} if DEVICE.type == "cuda" else {})  # no fp16 products on CPUs


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("distance", [0.1, 0.02])
def test_16_bit_inputs_keep_the_gradient(dtype: torch.dtype, distance: float) -> None:
    """What is left is the rounding of d(logits) to 16 bits before the products, which plain torch has on CUDA too; on a
    CPU it sums the gradients of weight and bias from fp32."""
    case = on_device(make_case(60, distance=distance), dtype)
    expected, expected_grads = oracle(case, KL_ALONE, attended=1000, masked=100)
    losses, grads = run(case, KL_ALONE, dtype, 1000, 100, "triton")
    _, plain = run(case, KL_ALONE, dtype, 1000, 100, "torch")
    assert relative_error(losses[1], expected[1]) <= 1e-5
    for name, got, reference, want in zip(GRADIENTS, grads[1:], plain[1:], expected_grads[1:], strict=True):
        assert got.dtype == dtype
        slack = 1.01 if name == "features" else 1.5
        assert relative_error(got, want) <= min(ROUNDING[dtype], slack * relative_error(reference, want)), name


def test_masked_lm_alone() -> None:
    case = on_device(make_case(100))
    outcomes = []
    for kernel in ("torch", "triton"):
        features, weight, bias = (t.clone().requires_grad_() for t in (case.features[case.positions], *case[2:4]))
        prediction = Prediction(features, features, Decoder(weight, bias, VOCAB))
        losses = TripleLoss(ObjectiveConfig(objective="mlm"), kernel).masked_lm(prediction, case.labels, masked=200)
        losses.total.backward()
        outcomes.append([losses.total, features.grad, weight.grad, bias.grad])
    for got, want in zip(*reversed(outcomes), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_the_same_inputs_give_the_same_bits() -> None:
    case = on_device(make_case(30), torch.bfloat16)
    first, second = (run(case, ObjectiveConfig(), torch.bfloat16, 30, 5, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True))
