"""Any depth, width, head count and vocabulary, through every kernel of a CPU: whole models with their gradients."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.bert import MaskedLanguageModel
from model.config import EncoderConfig, ObjectiveConfig
from model.hub import load_model, save_model
from model.kernels.choice import Kernels, choose_kernels
from model.kernels.native.library import obstacle
from model.objective import TripleLoss
from model.student import make_random, make_student
from tests.model.helpers import packed, relative_error

CPU = torch.device("cpu")
LENGTHS = (9, 30, 1, 17)
SHAPES = {  # hidden, heads, inner, vocabulary
    "heads of 12": (48, 4, 80, 131),
    "heads of 20": (80, 4, 112, 64),
    "heads of 96": (96, 1, 48, 1000),
    "heads of 12, width 36": (36, 3, 52, 77),
    "heads of 26, width 78": (78, 3, 50, 119),
    "heads of 1": (5, 5, 7, 9),
    "XLM-R's vocabulary": (16, 1, 16, 250002),
}


def losses_and_gradients(
    teacher: MaskedLanguageModel, student: MaskedLanguageModel, kernel: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The triple loss of a batch in which every third token is masked."""
    layout = packed(LENGTHS, student.config.vocab_size)
    positions = torch.arange(0, sum(LENGTHS), 3)
    labels = positions % student.config.vocab_size
    with torch.no_grad():
        taught = teacher(*layout)
    counts = {"attended": sum(LENGTHS), "masked": len(positions)}
    losses = TripleLoss(ObjectiveConfig(), kernel)(student(*layout), taught, positions, labels, **counts)
    losses.total.backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return torch.stack([losses.total.detach(), losses.distillation, losses.mlm, losses.cosine]), gradients


def pair(kernels: Kernels, name: str, folder: Path, dtype: torch.dtype) -> tuple:
    """Teacher of 3 layers and student of 2, the same weights (rounded to bf16) whatever the kernels."""
    hidden, heads, inner, vocabulary = SHAPES[name]
    shape = EncoderConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_layers=3,
        num_heads=heads,
        intermediate_size=inner,
        max_positions=max(LENGTHS),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.1,
    )
    if not folder.exists():
        teacher = make_random(shape, seed=3)
        save_model(teacher, folder, "roberta", teacher.bfloat16().state_dict())
    teacher = load_model(folder, kernels)
    student = make_student(teacher, layers=(0, 2), dropout=0.0, kernels=kernels)
    return teacher.to(dtype), student.to(dtype)


@pytest.mark.parametrize("attention", ["sdpa", "softmax", "blocked"])
@pytest.mark.parametrize("name", list(SHAPES)[:-1])
def test_torch(tmp_path: Path, name: str, attention: str) -> None:
    expected = losses_and_gradients(*pair(Kernels(), name, tmp_path / "t", torch.float64), "torch")
    kernels = Kernels(attention=attention)
    got = losses_and_gradients(*pair(kernels, name, tmp_path / "t", torch.float32), "torch")
    torch.testing.assert_close(got[0].double(), expected[0].double(), rtol=1e-5, atol=1e-6)
    assert got[1].keys() == expected[1].keys()
    for parameter, gradient in got[1].items():
        assert relative_error(gradient, expected[1][parameter]) < 1e-4, parameter


@pytest.mark.skipif(bool(obstacle()), reason=obstacle())
@pytest.mark.parametrize("name", SHAPES)
def test_what_auto_chooses_in_bf16(tmp_path: Path, name: str) -> None:
    """Native where the widths suit it, else torch with the reason; the same gradients to bf16's rounding either way."""
    expected = losses_and_gradients(*pair(Kernels(), name, tmp_path / "t", torch.float64), "torch")
    shape = pair(Kernels(), name, tmp_path / "t", torch.float32)[1].config
    kernels, why = choose_kernels("auto", "auto", shape, CPU, torch.bfloat16)
    suits = shape.hidden_size % 16 == shape.intermediate_size % 16 == 0
    assert (kernels.linear, kernels.vocab_loss) == (("native", "native") if suits else ("torch", "torch"))
    assert (kernels.attention == "native") == (shape.hidden_size // shape.num_heads % 16 == 0)
    assert (kernels.attention == "native") != ("native: it needs" in why)
    losses, gradients = losses_and_gradients(*pair(kernels, name, tmp_path / "t", torch.bfloat16), kernels.vocab_loss)
    plain = losses_and_gradients(*pair(Kernels(), name, tmp_path / "t", torch.bfloat16), "torch")
    torch.testing.assert_close(losses.double(), expected[0].double(), rtol=0.03, atol=0.01)
    for parameter in ("encoder.word.weight", "encoder.layers.0.qkv.weight", "head.bias"):
        exact = expected[1][parameter]
        bound = max(0.02, 1.5 * relative_error(plain[1][parameter], exact))
        assert relative_error(gradients[parameter], exact) < bound, parameter
