"""Families of models as train.py meets them: which teacher is refused, which layout a student gets, what a run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from data.config import DataConfig
from inputs import InputLoader, Inputs
from model.config import StudentConfig
from model.families import FAMILIES
from model.hub import load_model, read_config
from tests.conftest import Toy
from tests.launch import ds_config, metrics, torchrun
from tests.model.helpers import published
from training.distributed import Ranks
from training.ds_config import read_ds_config


def load(toy: Toy, folder: Path, *, max_length: int = 24, **source: Any) -> Inputs:
    return InputLoader(
        data=DataConfig(data=(str(toy.train),), max_length=max_length),
        source=StudentConfig(**source),
        ds=read_ds_config(str(ds_config(folder / "ds.json")), num_ranks=1, device_type="cpu"),
        ranks=Ranks(rank=0, num_ranks=1, device=torch.device("cpu")),
        seed=0,
        eval_sequences=8,
        is_distillation="architecture" not in source,
        is_compiled=False,
    ).load()


def vocab_size(toy: Toy) -> int:
    return read_config(toy.teacher)[0].vocab_size


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_teachers_family_decides_the_students(toy: Toy, tmp_path: Path, model_type: str) -> None:
    published(model_type, vocab_size=vocab_size(toy)).save_pretrained(tmp_path / "teacher")
    inputs = load(toy, tmp_path, teacher=str(tmp_path / "teacher"))
    layout = {"bert": "distilbert"}.get(model_type, model_type)
    assert inputs.model_type == layout
    assert f"student's folder: {layout} (as students of {model_type} are published)" in inputs.choices
    assert inputs.student.config.num_layers == 2


def test_a_layout_that_cannot_hold_the_student_is_changed_and_named(toy: Toy, tmp_path: Path) -> None:
    published("bert", vocab_size=vocab_size(toy), layer_norm_eps=1e-5).save_pretrained(tmp_path / "teacher")
    inputs = load(toy, tmp_path, teacher=str(tmp_path / "teacher"))
    assert inputs.model_type == "bert"
    assert inputs.choices[-1].startswith("student's folder: bert (the teacher's layer_norm_eps is 1e-05, DistilBERT's")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_teacher_of_another_vocabulary_without_tokenizer_files_is_refused(
    toy: Toy, tmp_path: Path, model_type: str
) -> None:
    published(model_type).save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match=rf"the model has 131 tokens, --data .* was prepared with {vocab_size(toy)}\."):
        load(toy, tmp_path, teacher=str(tmp_path / "teacher"))


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta"])
def test_the_longest_sequence_is_what_the_positions_can_take(toy: Toy, tmp_path: Path, model_type: str) -> None:
    """As RoBERTa's 514 positions take 512 tokens."""
    reference = published(model_type, vocab_size=vocab_size(toy), max_position_embeddings=26)
    reference.save_pretrained(tmp_path / "teacher")
    for source in ({"teacher": str(tmp_path / "teacher")}, {"architecture": str(tmp_path / "teacher/config.json")}):
        inputs = load(toy, tmp_path, max_length=24, **source)
        assert (inputs.model_type, inputs.student.config.max_positions) == (model_type, 24)
        with pytest.raises(ValueError, match=r"--max_length 25 exceeds the model's 24 usable positions: .*24 or less"):
            load(toy, tmp_path, max_length=25, **source)


@pytest.mark.slow
def test_pre_trained_from_scratch_and_then_a_teacher(toy: Toy, tmp_path: Path) -> None:
    shape = published("xlm-roberta", vocab_size=vocab_size(toy)).config.to_diff_dict()
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    optimizer = {"type": "AdamW", "params": {"lr": 5e-3, "weight_decay": 0.01, "torch_adam": True}}
    config = ds_config(tmp_path / "ds.json", optimizer=optimizer)
    common = ("--ds_config", config, "--data", toy.train, "--eval_data", toy.heldout, "--max_length", 24)
    flags = (
        "--objective",
        "mlm",
        "--architecture",
        tmp_path / "shape.json",
        "--max_updates",
        60,
        "--mask_smoothing",
        0,
    )
    result = torchrun(2, "train.py", *common, *flags, "--output", tmp_path / "teacher")
    assert result.returncode == 0, result.stdout[-4000:]
    losses = [line["eval_mlm_loss"] for line in metrics(tmp_path / "teacher") if "eval_mlm_loss" in line]
    assert losses[-1] < losses[0] - 1.0
    teacher = tmp_path / "teacher/student"
    flags = ("--teacher", teacher, "--max_updates", 6, "--mask_smoothing", 0)
    result = torchrun(2, "train.py", *common, *flags, "--output", tmp_path / "run")
    assert result.returncode == 0, result.stdout[-4000:]
    for folder, layers in ((teacher, 4), (tmp_path / "run/student", 2)):
        model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        assert type(model).__name__ == "XLMRobertaForMaskedLM"
        assert load_model(folder).config.num_layers == layers
        # The toy's tokenizer has [PAD] first: positions are counted from it, not from the architecture's padding id.
        assert (model.config.pad_token_id, model.config.max_position_embeddings) == (0, 25)
