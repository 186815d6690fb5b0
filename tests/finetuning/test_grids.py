"""The published hyperparameters, as they reach the optimizer and its schedule."""

from pathlib import Path

import pytest
import torch
import transformers

from evaluation.results import Cell
from evaluation.tasks import TASKS, Kind
from finetuning.features import Collator
from finetuning.grids import COMPACT_GRID, grid_of, recipe_of
from finetuning.objective import Weights
from finetuning.trainer import make_trainer


@pytest.mark.parametrize(
    ("task", "model_type", "width", "cells", "fastest"),
    [
        ("rte", "distilbert", 768, 4, 5e-5),
        ("rte", "distilbert", 384, 20, 3e-4),
        ("imdb", "bert", 767, 20, 3e-4),
        ("squad", "bert", 384, 1, 5e-5),
        ("rte", "roberta", 384, 6, 3e-5),
    ],
)
def test_grid_of_a_model(task: str, model_type: str, width: int, cells: int, fastest: float) -> None:
    grid = grid_of(TASKS[task], model_type, width)
    assert len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.epochs) == cells
    assert max(grid.learning_rates) == fastest
    assert (grid is COMPACT_GRID) == ("Turc" in grid.source) == (cells == 20)


@pytest.mark.parametrize(
    ("task", "model_type", "decay", "share", "clip"),
    [
        ("rte", "distilbert", 0.01, 0.1, 1.0),
        ("squad", "bert", 0.01, 0.1, 1.0),
        ("rte", "roberta", 0.1, 0.06, 0.0),
        ("squad", "roberta", 0.01, 0.06, 0.0),
    ],
)
def test_decay_warm_up_and_clipping(
    tmp_path: Path, task: str, model_type: str, decay: float, share: float, clip: float
) -> None:
    shape = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    trainer = make_trainer(
        transformers.BertForSequenceClassification(shape),
        [{"input_ids": [1, 2], "attention_mask": [1, 1], "labels": torch.tensor(0).numpy()}] * 200,
        Collator(pad_id=0),
        kind=Kind.CLASSIFICATION,
        weights=Weights(),
        cell=Cell(batch_size=2, learning_rate=1e-3, epochs=1),
        seed=0,
        recipe=recipe_of(TASKS[task], model_type),
        micro_batch=0,
        dtype=None,
        ds_config="",
        folder=tmp_path,
    )
    trainer.create_optimizer_and_scheduler(100)
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(trainer.model.parameters()))
    for name, parameter in trainer.model.named_parameters():
        free = name.endswith("bias") or "LayerNorm" in name
        assert decays[id(parameter)] == (0.0 if free else decay), name
    rates = []
    for _ in range(100):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates.index(max(rates)) == round(100 * share)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-3 / (100 - round(100 * share)))
    assert trainer.args.max_grad_norm == clip
