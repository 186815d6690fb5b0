"""The DeepSpeed JSON: ours are valid, and what would silently change an update is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launch import ROOT, ds_config
from training.ds_config import read_ds_config

SHIPPED = sorted((ROOT / "ds_configs").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_without_risk(path: Path) -> None:
    device = "cpu" if "cpu" in path.stem else "cuda"
    for num_ranks in (1, 2):
        config = read_ds_config(str(path), num_ranks=num_ranks, device_type=device)
        assert config.warnings == ()
        product = config.sequences_per_micro_batch * config.micro_batches_per_update * num_ranks
        assert product == config.sequences_per_update == config.raw["train_batch_size"]
        assert config.raw["gradient_accumulation_steps"] == config.micro_batches_per_update


def test_the_recipe_is_the_default() -> None:
    config = read_ds_config(str(ROOT / "ds_configs/zero2.json"), num_ranks=8, device_type="cuda")
    assert (config.sequences_per_update, config.precision, config.zero_stage) == (4096, "bf16", 2)
    assert config.micro_batches_per_update == 16
    parameters = config.raw["optimizer"]["params"]
    assert (parameters["lr"], parameters["betas"], parameters["eps"]) == (5e-4, [0.9, 0.98], 1e-6)
    assert config.raw["gradient_clipping"] == 5.0


def read(folder: Path, num_ranks: int = 2, **changes: Any) -> Any:
    return read_ds_config(str(ds_config(folder / "ds.json", **changes)), num_ranks=num_ranks, device_type="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": {"type": "WarmupLR"}}, "'scheduler' is refused: the code owns the schedule"),
        ({"gradient_cliping": 1.0}, "'gradient_cliping' is not known: did you mean 'gradient_clipping'"),
        ({"gradient_clipping": None}, "missing 'gradient_clipping'"),
        ({"gradient_allreduce_op": "mean"}, "must be 'sum'"),
        ({"train_batch_size": "auto"}, "train_batch_size is 'auto', expected a whole number"),
        ({"train_micro_batch_size_per_gpu": 0}, "train_micro_batch_size_per_gpu is 0"),
        ({"train_batch_size": 18}, "18 is no multiple of train_micro_batch_size_per_gpu 4 x 2 ranks = 8"),
        ({"gradient_accumulation_steps": 3}, r"contradicts 16 / \(4 x 2 ranks\) = 2"),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, "exclude each other"),
        ({"fp16": {"enabled": True}}, "fp16.enabled on a CPU is refused"),
        ({"bf16": {"enabled": "yes"}}, "bf16.enabled must be true or false"),
        ({"zero_optimization": {"stage": 3}}, "stage is 3, expected 1 or 2"),
        ({"zero_optimization": {"stage": 2, "compute_grad_norm": False}}, "compute_grad_norm false"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer needs a type and params.lr"),
        ({"zero_optimization": {"stage": 0}}, "stage is 0, expected 1 or 2"),
        ({"bf16": True}, "bf16 is True, expected an object"),
        ({"optimizer": {"type": "AdamW", "params": None}}, "optimizer needs a type and params.lr"),
        ({"prescale_gradients": True}, "would scale the update twice"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_keys_are_refused_by_name(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **changes)


def test_advice_on_batch_sizes_is_right(tmp_path: Path) -> None:
    """What the message proposes is accepted."""
    with pytest.raises(ValueError, match="use train_micro_batch_size_per_gpu 3, or a train_batch_size of 24"):
        read(tmp_path, train_batch_size=18)
    assert read(tmp_path, train_batch_size=18, train_micro_batch_size_per_gpu=3).micro_batches_per_update == 3
    assert read(tmp_path, train_batch_size=24).micro_batches_per_update == 3


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"bf16": {"enabled": True}, "data_types": None}, "data_types.grad_accum_dtype is not fp32"),
        ({"bf16": {"enabled": True}, "communication_data_type": None}, "communication_data_type is not fp32"),
        ({"gradient_clipping": 0}, "gradient_clipping is 0"),
        ({"timers": None}, "timers.throughput.enabled is not false"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}, "torch_adam is not true"),
    ],
)
def test_risky_keys_are_warned_about(tmp_path: Path, changes: dict, warning: str) -> None:
    warnings = read(tmp_path, **changes).warnings
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    ds_config(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match=r"no DeepSpeed configuration at --ds_config .*none\.json.*other\.json"):
        read_ds_config(str(tmp_path / "none.json"), num_ranks=1, device_type="cpu")
    (tmp_path / "broken.json").write_text(json.dumps({"train_batch_size": 4})[:-1])
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON: .*line 1 column"):
        read_ds_config(str(tmp_path / "broken.json"), num_ranks=1, device_type="cpu")
