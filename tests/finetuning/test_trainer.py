"""What an update is made of: the same examples with the same weight, however a batch is divided."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from evaluation.results import Cell
from evaluation.tasks import Kind
from finetuning.features import Collator, Feature
from finetuning.grids import BERT
from finetuning.objective import Weights
from finetuning.trainer import TaskTrainer, make_trainer

NUM_EXAMPLES, BATCH = 37, 8


def examples() -> list[Feature]:
    """Of many lengths; the second token numbers them."""
    rng = np.random.default_rng(0)
    features: list[Feature] = []
    for number in range(NUM_EXAMPLES):
        ids = [2, 5 + number, *rng.integers(5, 50, int(rng.integers(1, 20))).tolist(), 3]
        features.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": np.int64(number % 3 == 0)})
    return features


def trainer(folder: Path, micro_batch: int = 0, dropout: float = 0.0, seed: int = 3, rate: float = 1e-3) -> TaskTrainer:
    transformers.set_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return make_trainer(
        transformers.BertForSequenceClassification(shape),
        examples(),
        Collator(pad_id=0),
        kind=Kind.CLASSIFICATION,
        weights=Weights(),
        cell=Cell(batch_size=BATCH, learning_rate=rate, epochs=2),
        seed=seed,
        recipe=BERT,
        micro_batch=micro_batch,
        dtype=None,
        ds_config="",
        folder=folder,
    )


def test_the_last_update_of_an_epoch_weighs_its_examples_alike(tmp_path: Path) -> None:
    """37 = 4 x 8 + 5, in micro-batches of 2 the last update is 2 + 2 + 1."""
    whole, split = trainer(tmp_path / "whole"), trainer(tmp_path / "split", micro_batch=2)
    losses = [one.train().training_loss for one in (whole, split)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for (name, one), two in zip(whole.model.named_parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def order(one: TaskTrainer) -> list[int]:
    """Of the examples of an epoch; the sampler goes on where it was."""
    return [int(number) for number in one.get_train_dataloader().batch_sampler.sampler]  # type: ignore[union-attr]


def test_the_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    """Not on what dropout has drawn, which differs between ranks, nor on how a batch is divided."""
    first, disturbed = trainer(tmp_path / "a"), trainer(tmp_path / "b", micro_batch=2)
    loaders: list[Any] = [first.get_train_dataloader(), disturbed.get_train_dataloader()]
    epochs = []
    for loader in loaders:
        torch.rand(7 * len(epochs) + 1)
        one, two = (list(loader.batch_sampler.sampler) for _ in range(2))
        epochs.append((one, two))
        assert sorted(one) == sorted(two) == list(range(NUM_EXAMPLES))
        assert one != two
    assert epochs[0] == epochs[1]
    assert order(trainer(tmp_path / "c", seed=4)) != epochs[0][0]


def test_a_seed_is_the_order_and_dropout(tmp_path: Path) -> None:
    losses = [
        trainer(tmp_path / str(n), dropout=0.3, seed=seed).train().training_loss for n, seed in enumerate((3, 4, 3))
    ]
    assert losses[0] == losses[2] != losses[1]


def test_a_loss_that_is_not_finite_is_reported_as_such(tmp_path: Path) -> None:
    assert not np.isfinite(trainer(tmp_path, rate=1e30).train().training_loss)
