"""A rank that runs out of memory: half the micro-batch, the same update again, no other figure than without it."""

from pathlib import Path

import pytest

from tests.conftest import Toy
from tests.launch import deepspeed, ds_config, metrics, run, torchrun
from tests.training.test_recovery import flags
from training.ds_config import read_ds_config
from training.out_of_memory import read_micro_batch, smaller_micro_batch


def test_smaller_micro_batches_divide_a_ranks_share() -> None:
    assert [smaller_micro_batch(size, 24) for size in (24, 8, 6, 3, 2, 1)] == [12, 4, 3, 1, 1, 0]


def test_what_was_found_to_fit_is_for_that_configuration_only(tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json", train_batch_size=32, train_micro_batch_size_per_gpu=8)
    assert read_micro_batch(str(tmp_path)) is None
    assert read_micro_batch("") is None
    (tmp_path / "micro_batch.json").write_text('{"instead_of": 8, "sequences_per_micro_batch": 2}')
    fitting = read_micro_batch(str(tmp_path))
    options = {"num_ranks": 1, "device_type": "cpu", "fitting": fitting}
    assert read_ds_config(str(config), **options).sequences_per_micro_batch == 2
    other = ds_config(tmp_path / "ds.json", train_batch_size=32, train_micro_batch_size_per_gpu=16)
    assert read_ds_config(str(other), **options).sequences_per_micro_batch == 16
    (tmp_path / "micro_batch.json").write_text('{"instead_of": 8')
    with pytest.raises(ValueError, match=r"micro_batch.json is damaged .* remove it"):
        read_micro_batch(str(tmp_path))


@pytest.mark.slow  # under each launcher
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_out_of_memory_on_one_rank(launcher: str, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout, so that the figures are equal to rounding; rank 0 is waiting for rank 1 when that runs out."""
    monkeypatch.setenv("STARVED", str(tmp_path / "marker"))
    config = ds_config(tmp_path / "ds.json")
    common = {"dropout": 0.0, "log_every": 1, "max_updates": 8, "eval_every": 100, "checkpoint_every": 100}
    start = torchrun if launcher == "torchrun" else deepspeed
    arguments = flags(toy, config, tmp_path / "run", **common)[1:]
    result = start(2, "tests/training/starving.py", *arguments)
    assert (tmp_path / "marker").exists()
    assert result.returncode == 0, result.stdout[-4000:]
    said = [line for line in result.stdout.splitlines() if line.startswith("out of memory")]
    assert len(said) == 1
    assert "update 4 is made again, and all that follow, with micro-batches of 2 instead of 4 sequences" in said[0]
    assert "16 sequences = 2 ranks x 4 micro-batches x 2" in result.stdout
    whole = torchrun(2, *flags(toy, config, tmp_path / "whole", **common))
    assert whole.returncode == 0, whole.stdout[-3000:]
    lines, expected = ([line for line in metrics(tmp_path / name) if "loss" in line] for name in ("run", "whole"))
    assert [line["update"] for line in lines] == list(range(1, 9))
    for line, reference in zip(lines, expected, strict=True):
        for name in ("loss", "loss_mlm", "loss_distillation", "loss_cosine", "grad_norm"):
            assert line[name] == pytest.approx(reference[name], rel=2e-5), (line["update"], name)


def test_one_sequence_that_does_not_fit_ends_the_run(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARVED", str(tmp_path / "marker"))
    config = ds_config(tmp_path / "ds.json", train_micro_batch_size_per_gpu=1)
    arguments = flags(toy, config, tmp_path / "run", max_updates=8)[1:]
    result = torchrun(2, "tests/training/starving.py", *arguments)
    assert result.returncode == 1
    assert "a micro-batch of 1 sequences cannot be made smaller".lower() in result.stdout.lower(), result.stdout[-3000:]
    assert run(["pgrep", "-f", str(tmp_path)]).stdout == ""
