"""The teacher is frozen, in the precision that its device can do."""

from pathlib import Path

import pytest
import torch

from model.hub import load_model
from model.teacher import Teacher, choose_dtype
from tests.model.helpers import bert, packed

CPU = torch.device("cpu")


def test_teacher_takes_no_gradient_and_drops_nothing(tmp_path: Path) -> None:
    bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).save_pretrained(tmp_path)
    teacher = Teacher(load_model(tmp_path).train(), torch.float32, CPU)
    first, second = teacher(*packed()), teacher(*packed())
    assert torch.equal(first.hidden, second.hidden)
    assert not first.features.requires_grad
    assert not teacher.decoder().weight.requires_grad
    assert not isinstance(teacher, torch.nn.Module)


def test_precision_follows_the_device() -> None:
    assert choose_dtype("auto", torch.device("cuda"))[0] == torch.float16
    assert choose_dtype("auto", CPU)[0] in (torch.bfloat16, torch.float32)
    assert choose_dtype("bf16", CPU) == (torch.bfloat16, "asked for")
    with pytest.raises(ValueError, match="--teacher_dtype fp16 on a CPU is about 500 times slower"):
        choose_dtype("fp16", CPU)


def test_bf16_teacher_is_near_fp32(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    exact = Teacher(load_model(tmp_path), torch.float32, CPU)(*packed()).hidden
    rounded = Teacher(load_model(tmp_path), torch.bfloat16, CPU)(*packed()).hidden.float()
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.03
