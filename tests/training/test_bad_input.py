"""What a user gets wrong: one message that says what to do, exit on every rank, no hang, nothing written."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Toy, prepare
from tests.launch import ROOT, deepspeed, ds_config, run, torchrun


def launch(folder: Path, config: Path, *flags: object, ranks: int = 1) -> tuple[int, str]:
    command = [
        "train.py",
        "--ds_config",
        config,
        "--max_length",
        40,
        "--max_updates",
        2,
        *flags,
        "--output",
        folder / "run",
    ]
    result = run([sys.executable, *command]) if ranks == 1 else torchrun(ranks, *command)
    assert not (folder / "run" / "config.json").exists()
    return result.returncode, result.stdout


def assert_one_error(code: int, output: str, *parts: str) -> None:
    errors = [line for line in output.splitlines() if line.startswith("error")]
    assert len(errors) == 1, output[-3000:]
    assert all(part in errors[0] for part in parts), errors[0]
    assert "Traceback" not in output
    assert code == 2


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun"])
def test_missing_corpus_stops_every_rank_with_one_message(launcher: str, toy: Toy, tmp_path: Path) -> None:
    """With the default corpus name, where none has been made: the first thing that a new user meets."""
    command = ["train.py", "--ds_config", ds_config(tmp_path / "ds.json"), "--teacher", toy.teacher]
    command += ["--data", "corpus/not-there", "--output", tmp_path / "run"]
    result = (deepspeed if launcher == "deepspeed" else torchrun)(2, *command, timeout=100)
    assert result.returncode != 0
    messages = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, result.stdout[-3000:]
    assert "no corpus at 'corpus/not-there'" in messages[0]
    assert "python -m data.prepare --input" in messages[0]
    exits = (
        result.stdout.count("exits with return code = 2")
        if launcher == "deepspeed"
        else result.stdout.count("exitcode  : 2")
    )
    assert exits >= 1, result.stdout[-3000:]


def test_batches_that_do_not_divide(toy: Toy, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json", train_batch_size=18)
    code, output = launch(tmp_path, config, "--teacher", toy.teacher, "--data", toy.train, ranks=2)
    assert code != 0
    assert output.count("error: ") == 1
    assert "train_batch_size 18 is no multiple of train_micro_batch_size_per_gpu 4 x 2 ranks = 8" in output


def test_scheduler_block(toy: Toy, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json", scheduler={"type": "WarmupLR", "params": {}})
    code, output = launch(tmp_path, config, "--teacher", toy.teacher, "--data", toy.train)
    assert_one_error(code, output, "key 'scheduler' is refused", "--warmup_share")


def test_tokenizer_of_another_vocabulary(toy: Toy, tmp_path: Path) -> None:
    """Of the same size, so that only the fingerprint can tell."""
    (tmp_path / "text.txt").write_text((toy.train.with_suffix(".txt")).read_text())
    shutil.copytree(toy.teacher, tmp_path / "tokenizer")
    tokenizer = json.loads((tmp_path / "tokenizer/tokenizer.json").read_text())
    words = [word for word in tokenizer["model"]["vocab"] if not word.startswith("[")]
    tokenizer["model"]["vocab"][words[-1]], tokenizer["model"]["vocab"][words[-2]] = (
        tokenizer["model"]["vocab"][words[-2]],
        tokenizer["model"]["vocab"][words[-1]],
    )
    (tmp_path / "tokenizer/tokenizer.json").write_text(json.dumps(tokenizer))
    prepare(
        "--input",
        tmp_path / "text.txt",
        "--tokenizer",
        tmp_path / "tokenizer/tokenizer.json",
        "--output",
        tmp_path / "c",
    )
    config = ds_config(tmp_path / "ds.json")
    code, output = launch(tmp_path, config, "--teacher", toy.teacher, "--data", tmp_path / "c")
    assert_one_error(code, output, "has another vocabulary than --data", "Prepare the corpus with --tokenizer")


def without_head(toy: Toy, folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(toy.teacher, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("cls.")}, folder / "model.safetensors")
    return folder


def test_teacher_without_masked_lm_head(toy: Toy, tmp_path: Path) -> None:
    teacher = without_head(toy, tmp_path / "headless")
    code, output = launch(tmp_path, ds_config(tmp_path / "ds.json"), "--teacher", teacher, "--data", toy.train)
    assert_one_error(code, output, "no masked-LM head", "BertForMaskedLM")


def test_teacher_near_chance(toy: Toy, tmp_path: Path) -> None:
    """The toy teacher has random weights, as a head that was never trained or loaded would have."""
    code, output = launch(tmp_path, ds_config(tmp_path / "ds.json"), "--teacher", toy.teacher, "--data", toy.train)
    assert_one_error(
        code, output, "predicts masked words with a loss of", "word frequencies alone reach", "--no_check_teacher"
    )


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("teacher folder", {"teacher": "no/such/folder"}, "no model at 'no/such/folder'"),
    ("long sequences", {"max_length": 65}, "--max_length 65 exceeds the model's 64 usable positions"),
    ("layer", {"student_layers": "0,9"}, "the teacher has layers 0 to 3, not 9"),
    ("ds_config", {"ds_config": "no.json"}, "no DeepSpeed configuration at --ds_config no.json"),
    (
        "architecture",
        {"architecture": "no.json", "objective": "mlm"},
        "no model configuration at --architecture no.json",
    ),
    ("held-out corpus", {"eval_data": "no/corpus"}, "no corpus at 'no/corpus'"),
    ("tested on training text", {"eval_data": "TRAIN"}, "has the same contents as --data"),
    ("dtype", {"teacher_dtype": "fp16"}, "--teacher_dtype fp16 on a CPU"),
    (
        "profile",
        {"objective": "mlm", "profile": 2, "max_updates": 3},
        "--profile 2 needs 4 updates, this run has 3",
    ),
    (
        "drift",
        {"teacher_dtype": "fp8", "teacher_max_drift": 1e-6, "no_check_teacher": True},
        "above --teacher_max_drift 1e-06: use --teacher_dtype auto",
    ),
    ("attention", {"attention": "varlen"}, "--attention varlen cannot run: it needs a CUDA device"),
]


def test_every_other_bad_value(toy: Toy, tmp_path: Path) -> None:
    """One process for all of them: what is checked is the message, not the launch."""
    script = ROOT / "tests/training/expect_errors.py"
    good = {"teacher": toy.teacher, "data": toy.train, "ds_config": ds_config(tmp_path / "ds.json"), "max_length": 40}
    cases = []
    for name, change, message in CASES:
        flags = good | {"output": tmp_path / name} | {k: toy.train if v == "TRAIN" else v for k, v in change.items()}
        arguments = [text for k, v in flags.items() for text in ([f"--{k}"] if v is True else [f"--{k}", str(v)])]
        cases.append([arguments, message])
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    result = run([sys.executable, script, tmp_path / "cases.json"])
    assert result.returncode == 0, result.stdout[-4000:]
    assert result.stdout.count("as expected") == len(CASES)


def test_an_existing_run_is_not_overwritten(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    flags = ["--teacher", toy.teacher, "--data", toy.train, "--output", tmp_path / "run", "--no_check_teacher"]
    result = run(
        [sys.executable, "train.py", "--ds_config", ds_config(tmp_path / "ds.json"), "--max_length", 40, *flags]
    )
    assert_one_error(result.returncode, result.stdout, "already holds a run", "--resume")


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_own_code(toy: Toy, tmp_path: Path, bf16: bool) -> None:
    """Such updates are skipped; a run of nothing else must not end as finished."""
    from safetensors.torch import load_file, save_file

    teacher = tmp_path / "teacher"
    shutil.copytree(toy.teacher, teacher)
    weights = load_file(teacher / "model.safetensors")
    weights["cls.predictions.bias"][7] = float("nan")
    save_file(weights, teacher / "model.safetensors")
    flags = ["--teacher", teacher, "--data", toy.train, "--max_updates", 3, "--log_every", 1, "--no_check_teacher"]
    flags += ["--max_skipped_updates", 2]
    config = ds_config(tmp_path / "ds.json", bf16={"enabled": bf16})
    command = ["train.py", "--ds_config", config, "--max_length", 40, *flags]
    result = run([sys.executable, *command, "--output", tmp_path / "run"])
    assert result.returncode == 3, result.stdout[-3000:]
    assert (
        "error: 2 updates in a row, up to 2, were skipped: the loss had jumped, or it or its gradients" in result.stdout
    )
    assert not (tmp_path / "run/student").exists()
