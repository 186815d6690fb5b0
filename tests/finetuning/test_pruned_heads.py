"""Does training leave pruned heads where they are, and is it that of a model without them?"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from command_line import parse
from evaluation.tasks import TASKS
from exporting.plain import plain_model
from finetune import main
from finetuning.config import FinetuneConfig
from finetuning.starts import choose_start, halve
from model.pruned_heads import PRUNED_HEADS, attention_output, hold_pruned_heads, pruned_heads
from pruning.heads import remove_heads
from tests.conftest import Toy
from tests.finetuning.toy_tasks import write_sst2
from tests.launch import deepspeed
from tests.pruning.models import batch, make

GONE = {0: (1, 3), 1: (0,)}
NAMED = {"0": [0], "2": [1]}


def update(model: torch.nn.Module, logits: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """A step as the Trainer makes it; the norm of its gradient."""
    optimizer.zero_grad()
    F.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return float(norm)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_training_is_that_of_a_model_without_these_heads(family: str) -> None:
    """The reference has them taken out of its matrices: the same norms of gradients, and the same weights afterwards."""
    model = make(family, "SequenceClassification", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    remove_heads(model, GONE)
    small = plain_model(model).requires_grad_(True)
    hold_pruned_heads(model)
    for embeddings in (
        model.base_model.embeddings,
        small.encoder.word,
        small.encoder.position,
        small.encoder.token_type,
    ):
        if embeddings is not None:  # the graph folds token types of RoBERTa's layout into positions
            embeddings.requires_grad_(False)
    small.encoder.norm.requires_grad_(False)
    inputs = batch((9, 6, 3), pad=model.config.pad_token_id)
    types = [torch.zeros_like(inputs["input_ids"])] if "token_type_ids" in small.input_names else []
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1) for one in (model, small)]
    for _ in range(4):
        whole = update(model, model(**inputs).logits, optimizers[0])
        assert update(small, small(*inputs.values(), *types)[0], optimizers[1]) == pytest.approx(whole, rel=1e-4)
    for layer, heads in GONE.items():
        for head in heads:
            assert not attention_output(model, layer).weight[:, 4 * head : 4 * head + 4].any()
    trained = plain_model(model)
    for name, value in small.encoder.layers.named_parameters():
        torch.testing.assert_close(trained.encoder.layers.get_parameter(name), value, rtol=1e-3, atol=3e-5)


@pytest.fixture
def pruned(toy: Toy, tmp_path: Path) -> Path:
    """The toy teacher with heads 0 of layer 0 and 1 of layer 2 named as gone; their columns are whatever they were."""
    folder = tmp_path / "pruned"
    shutil.copytree(toy.teacher, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {PRUNED_HEADS: NAMED}))
    return folder


def check(folder: Path) -> None:
    """Zeros where config.json says so, and nowhere else."""
    assert json.loads((folder / "config.json").read_text())[PRUNED_HEADS] == NAMED
    weights = load_file(folder / "model.safetensors")
    for layer in range(4):
        columns = weights[f"bert.encoder.layer.{layer}.attention.output.dense.weight"].unflatten(1, (2, 16))
        for head in range(2):
            assert columns[:, head].any() == (head not in NAMED.get(str(layer), ())), (layer, head)


FAST = (
    *("--task", "sst2", "--seeds", 1, "--epochs", 1, "--batch_sizes", 16, "--learning_rates", 3e-3),
    *("--precision", "fp32", "--max_length", 32),
)


def test_finetune_keeps_them_at_zero(pruned: Path, tmp_path: Path) -> None:
    data, output = write_sst2(tmp_path / "glue", num_train=64), tmp_path / "out"
    command = [*FAST, "--model", pruned, "--data", data, "--output", output]
    assert main(parse(FinetuneConfig, [str(part) for part in command], "")) == 0
    check(output / "sst2/model")


@pytest.mark.slow
def test_finetune_keeps_them_at_zero_under_deepspeed(pruned: Path, tmp_path: Path) -> None:
    data, output = write_sst2(tmp_path / "glue", num_train=64), tmp_path / "out"
    command = [*FAST, "--model", pruned, "--data", data, "--output", output]
    result = deepspeed(2, "finetune.py", *command, "--ds_config", "ds_configs/finetune/zero2.json")
    assert result.returncode == 0, result.stdout
    check(output / "sst2/model")


def test_every_start_has_zeros_there(pruned: Path) -> None:
    for init in ("folder", "random"):
        start = choose_start(FinetuneConfig(task=("sst2",), model=str(pruned), init=init), TASKS["sst2"])  # type: ignore[arg-type]
        model = start.build(0)
        assert pruned_heads(model.config) == {0: (0,), 2: (1,)}
        assert not attention_output(model, 2).weight[:, 16:].any()
        assert attention_output(model, 2).weight[:, :16].any()


def test_half_of_a_pruned_model_has_its_heads_under_their_new_layers() -> None:
    shape = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_attention_heads=2, num_hidden_layers=4, intermediate_size=8
    )
    model = transformers.BertForSequenceClassification(shape).eval()
    remove_heads(model, {1: (0,), 3: (1,)})
    half = halve(model, (0, 3)).eval()
    assert pruned_heads(half.config) == {1: (1,)}
    assert plain_model(half).shape.num_heads == (2, 1)
    assert pruned_heads(halve(model, (0, 2)).config) == {}
    assert pruned_heads(model.config) == {1: (0,), 3: (1,)}
