"""The same update for any split into ranks and micro-batches."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Toy
from tests.launch import ROOT, ds_config, metrics, torchrun

LEARNING_RATE = 8.0
SEQUENCES = 16


def launch(toy: Toy, folder: Path, num_ranks: int) -> None:
    """One update under ZeRO-1 and ZeRO-2, in fp32 and bf16, with one and four micro-batches a rank, by plain SGD without
    clipping, so that the change of the weights is the gradient."""
    runs = []
    for stage, precision in itertools.product((1, 2), ("fp32", "bf16")):
        for micro_batches in (1, 4):
            name = f"zero{stage}-{num_ranks}x{micro_batches}" + ("-bf16" if precision == "bf16" else "")
            config = ds_config(
                folder / f"{name}.json",
                train_batch_size=SEQUENCES,
                train_micro_batch_size_per_gpu=SEQUENCES // (num_ranks * micro_batches),
                gradient_clipping=1e9,
                bf16={"enabled": precision == "bf16"},
                zero_allow_untested_optimizer=True,
                optimizer={"type": "SGD", "params": {"lr": LEARNING_RATE, "weight_decay": 0.0}},
                zero_optimization={"stage": stage},
            )
            flags = {
                "ds_config": config,
                "teacher": toy.teacher,
                "teacher_dtype": "fp32",  # a bf16 teacher rounds differently for other shapes of a micro-batch
                "data": toy.train,
                "max_length": 40,
                "max_updates": 1,
                "warmup_share": 0,
                "dropout": 0,
                "log_every": 1,
                "output": folder / name,
            }
            runs.append([text for k, v in flags.items() for text in (f"--{k}", str(v))] + ["--no_check_teacher"])
    (folder / f"runs{num_ranks}.json").write_text(json.dumps(runs))
    result = torchrun(num_ranks, ROOT / "tests/training/run_many.py", folder / f"runs{num_ranks}.json")
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.fixture(scope="module")
def runs(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    for num_ranks in (1, 2):
        launch(toy, folder, num_ranks)
    return folder


def gradient(runs: Path, toy: Toy, name: str) -> torch.Tensor:
    from model.hub import load_model
    from model.student import make_student

    before = make_student(load_model(toy.teacher)).state_dict()
    after = load_model(runs / name / "student").state_dict()
    return torch.cat([(before[n].double() - after[n].double()).flatten() / LEARNING_RATE for n in sorted(before)])


NAMES = [f"zero{stage}-{split}" for stage in (1, 2) for split in ("1x1", "1x4", "2x1", "2x4")]


@pytest.mark.parametrize("name", NAMES[1:])
def test_gradient_of_an_update_does_not_depend_on_the_split(runs: Path, toy: Toy, name: str) -> None:
    expected, got = gradient(runs, toy, NAMES[0]), gradient(runs, toy, name)
    assert expected.norm() > 0.1  # an update that changes nothing would agree with itself
    assert ((got - expected).norm() / expected.norm()).item() <= 1e-5


@pytest.mark.parametrize("name", [f"{name}-bf16" for name in NAMES])
def test_bf16_updates_agree_to_the_rounding_of_their_operands(runs: Path, toy: Toy, name: str) -> None:
    """ZeRO-1 in bf16 is another optimizer class of DeepSpeed's than in fp32; a lost micro-batch or a wrong scale shows."""
    expected, got = gradient(runs, toy, NAMES[0]), gradient(runs, toy, name)
    assert ((got - expected).norm() / expected.norm()).item() <= 0.02
    assert metrics(runs / name)[-1]["grad_norm"] == pytest.approx(expected.norm().item(), rel=0.02)


@pytest.mark.parametrize("name", NAMES[1:])
def test_losses_and_counts_do_not_depend_on_the_split(runs: Path, name: str) -> None:
    expected, got = metrics(runs / NAMES[0])[-1], metrics(runs / name)[-1]
    assert got["tokens"] == expected["tokens"]
    for field in ("loss", "loss_distillation", "loss_mlm", "loss_cosine", "grad_norm"):
        assert got[field] == pytest.approx(expected[field], rel=1e-5)


def test_the_gradient_is_the_objectives_own(runs: Path, toy: Toy) -> None:
    """Against autograd over the whole update at once, without DeepSpeed, with losses spelled out."""
    from data.batch import make_batch
    from data.batching import Blend, UpdateWindows
    from model.hub import load_model
    from model.student import make_student

    blend = Blend.open([str(toy.train)], max_length=40)
    window = UpdateWindows(blend, sequences_per_update=SEQUENCES, seed=0, mask_probability=0.15).window(0)
    masker = blend.masker(seed=0, probability=0.15, smoothing=0.7)
    batch = make_batch(blend, masker, window.sequence_ids, window.epochs)
    teacher = load_model(toy.teacher)
    student = make_student(teacher, dropout=0.0)
    layout = (batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen)
    own = student(*layout)
    with torch.no_grad():
        target = teacher(*layout)
        soft = torch.softmax(teacher.logits(target.features) / 2, -1)
    logits = student.logits(own.features)
    kl = (soft * (soft.log() - torch.log_softmax(logits / 2, -1))).sum() * 4 / len(batch.token_ids)
    mlm = torch.nn.functional.cross_entropy(logits[batch.masked_positions], batch.masked_labels)
    cosine = (1 - torch.cosine_similarity(own.hidden, target.hidden, dim=-1)).mean()
    (5 * kl + 2 * mlm + cosine).backward()
    expected = torch.cat(
        [p.grad.double().flatten() for _, p in sorted(student.named_parameters()) if p.grad is not None]
    )
    got = gradient(runs, toy, "zero2-2x4")
    assert ((got - expected).norm() / expected.norm()).item() <= 1e-5
    assert metrics(runs / "zero2-2x4")[-1]["loss_mlm"] == pytest.approx(mlm.item(), rel=1e-5)


def test_student_folder_has_weights_and_tokenizer(runs: Path) -> None:
    folder = runs / "zero2-2x4" / "student"
    assert {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    assert all(value.dtype == torch.float32 for value in load_file(folder / "model.safetensors").values())
