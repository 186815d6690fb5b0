"""--help and mistyped flags answer at once, in words, without colours where NO_COLOR is set."""

import sys
import time

import pytest

from tests.launch import run

COMMANDS = {
    "train": ["train.py"],
    "prepare": ["-m", "data.prepare"],
    "compare": ["-m", "evaluation.compare"],
    "finetune": ["finetune.py"],
    "table": ["-m", "evaluation.table"],
    "doctor": ["-m", "launcher.doctor"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_help_is_instant_and_imports_nothing_heavy(command: list[str]) -> None:
    started = time.monotonic()
    result = run([sys.executable, "-X", "importtime", *command, "--help"])
    assert result.returncode == 0
    assert time.monotonic() - started < 3.0
    imported = {
        line.rpartition("|")[2].strip() for line in result.stdout.splitlines() if line.startswith("import time")
    }
    assert not imported & {"torch", "deepspeed", "transformers", "tokenizers"}


def test_help_documents_every_flag() -> None:
    text = run([sys.executable, "train.py", "--help"], NO_COLOR="1", COLUMNS="120").stdout
    for flag in ("ds_config", "teacher", "data", "output", "max_updates", "epochs", "max_length", "student_layers"):
        assert f"--{flag} " in text
    for flag in (
        "student_init",
        "temperature",
        "weight_distillation",
        "weight_mlm",
        "weight_cosine",
        "seed",
        "eval_data",
    ):
        assert f"--{flag} " in text
    for flag in ("eval_every", "log_every", "checkpoint_every", "resume", "objective", "teacher_dtype", "attention"):
        assert f"--{flag}" in text
    assert "\x1b[" not in text
    assert text.count("--") < 80  # about 30 flags, not 300


@pytest.mark.parametrize("rank", ["0", "1"])
def test_mistyped_flag_names_the_right_one_on_one_rank(rank: str) -> None:
    flags = ["--ds_config", "ds_configs/zero2_cpu.json", "--temprature", "3"]
    result = run([sys.executable, "train.py", *flags], RANK=rank, LOCAL_RANK=rank)
    assert result.returncode == 2
    if rank == "0":
        assert "--temprature" in result.stdout
        assert "--temperature" in result.stdout
    else:
        assert result.stdout == ""


def test_a_missing_ds_config_is_named() -> None:
    result = run([sys.executable, "train.py"])
    assert result.returncode == 2
    assert "--ds_config" in result.stdout


def test_underscores_and_hyphens_are_the_same_flag() -> None:
    result = run([sys.executable, "train.py", "--ds-config", "none.json", "--max_length", "2"])
    assert result.returncode == 2
    assert "--max_length 2" in result.stdout
