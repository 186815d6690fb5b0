"""`--plan` before a run, and the line that compares it with what came: memory, time, disk, settings and who set them."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model.config import EncoderConfig
from model.hub import save_model
from model.student import make_random
from planning import clock
from tests.conftest import Toy, prepare, sentences
from tests.launch import ROOT, ds_config, run, torchrun

LIVE_TOLERANCE = 0.15
"""Of the bytes of all tensors together, against torch's own count."""
RESIDENT_TOLERANCE = 0.25
"""Of a CPU process: what its heap keeps is a mean of measurements."""
VOCABULARY, WIDTH = 8192, 192


@dataclass(frozen=True)
class Pair:
    """A toy whose memory is that of its model: a real vocabulary, mostly of words that never occur."""

    train: Path
    teacher: Path


@pytest.fixture(scope="module")
def pair(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    known = Path(f"{toy.train}.tokenizer")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    words = (known / "vocab.txt").read_text().splitlines()
    words += [f"[unused{number}]" for number in range(VOCABULARY - len(words))]
    (tokenizer / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "train.txt").write_text(sentences(2, 600))
    arguments = ("--tokenizer", tokenizer, "--workers", 1, "--output", folder / "train")
    prepare("--input", folder / "train.txt", *arguments)
    shape = EncoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_layers=4,
        num_heads=3,
        intermediate_size=4 * WIDTH,
        max_positions=128,
    )
    model = make_random(shape, seed=0)
    save_model(model, folder / "teacher", "bert", model.state_dict())
    for file in (folder / "train.tokenizer").iterdir():
        (folder / "teacher" / file.name).write_bytes(file.read_bytes())
    return Pair(folder / "train", folder / "teacher")


def ds_json(path: Path, stage: int, precision: str, **changes: Any) -> Path:
    content = json.loads(ds_config(path, bf16={"enabled": precision == "bf16"}, **changes).read_text())
    content["zero_optimization"]["stage"] = stage
    path.write_text(json.dumps(content))
    return path


def train(pair: Pair, config: Path, output: Path, *more: object) -> list[object]:
    common = ("--ds_config", config, "--teacher", pair.teacher, "--data", pair.train, "--max_length", 96)
    return ["train.py", *common, "--output", output, "--no_check_teacher", *more]


@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "fp32")])
def test_tensors_live_as_predicted(pair: Pair, tmp_path: Path, stage: int, precision: str) -> None:
    config = ds_json(tmp_path / "ds.json", stage, precision, train_batch_size=64, train_micro_batch_size_per_gpu=32)
    arguments = [config, pair.teacher, pair.train, 96, tmp_path / "trace.json"]
    result = run([sys.executable, ROOT / "tests/training/plan_worker.py", *arguments])
    assert result.returncode == 0, result.stdout[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["predicted"] == pytest.approx(found["measured"], rel=LIVE_TOLERANCE), found


def test_a_run_ends_with_plan_against_measured(pair: Pair, tmp_path: Path) -> None:
    config = ds_json(tmp_path / "ds.json", 2, "bf16", train_batch_size=128, train_micro_batch_size_per_gpu=32)
    more = ("--max_updates", 4, "--log_every", 1)
    result = torchrun(2, *train(pair, config, tmp_path / "run", *more))
    assert result.returncode == 0, result.stdout[-3000:]
    line = next(text for text in (tmp_path / "run/log.txt").read_text().splitlines() if "plan and run" in text)
    memory, seconds = re.findall(r"\(([+-]\d+)%\)", line)
    assert abs(int(memory)) <= 100 * RESIDENT_TOLERANCE, line
    assert abs(int(seconds)) < 200, line  # of a busy machine


def test_a_plan_trains_and_writes_nothing(pair: Pair, tmp_path: Path) -> None:
    """For 8 ranks, from one. Every part that somebody reads before queueing."""
    config = ds_json(tmp_path / "ds.json", 1, "bf16", train_batch_size=64)
    result = run([sys.executable, *train(pair, config, tmp_path / "run", "--plan", 8, "--max-updates", 30)])
    assert result.returncode == 0, result.stdout[-3000:]
    assert not (tmp_path / "run").exists()
    text = result.stdout
    for expected in (
        "plan for 8 ranks; nothing is trained or written",
        "max_updates 30 (flag)",
        "check_teacher False (flag)",
        "temperature 2.0 (default)",
        f"optimizer.params.lr 0.001 ({config})",
        "micro_batches_per_update 2 (derived: 64 / (4 x 8 ranks))",
        "warm_up_updates 2 (derived: warmup_share x num_updates)",
        "student weights, bf16",
        "fp32 master weights / 8 ranks",
        "gradients (ZeRO-1: whole on every rank)",
        f"{pair.train}: 600 documents, ",
        "; 100% of the sequences: ",
        "updates 30 of 64 sequences",
        "micro-batches of",
        "1 checkpoints of",
    ):
        assert expected in text
    weights = (
        VOCABULARY * WIDTH + (96 + 32) * WIDTH + 2 * WIDTH + 2 * (12 * WIDTH**2 + 13 * WIDTH) + WIDTH**2 + 3 * WIDTH
    )
    weights += VOCABULARY
    assert f"{4 * weights / 8 / 1e6:,.1f} MB  fp32 master weights / 8 ranks" in text
    assert f"1 checkpoints of {12 * weights / 1e6:,.1f} MB" in text
    together = [float(number.replace(",", "")) for number in re.findall(r"^ +([\d,.]+) MB", text, re.MULTILINE)]
    memory = together[: together.index(max(together[:11])) + 1]
    assert sum(memory[:-1]) == pytest.approx(memory[-1], abs=1.0)


def test_all_ranks_plan_together(pair: Pair, tmp_path: Path) -> None:
    config = ds_json(tmp_path / "ds.json", 2, "fp32")
    result = torchrun(2, *train(pair, config, tmp_path / "run", "--plan", 2))
    assert result.returncode == 0, result.stdout[-3000:]
    assert result.stdout.count("plan for 2 ranks") == 1
    assert "each of the 2 is taken" not in result.stdout
    assert "available here for each of 2 ranks" in result.stdout


def test_a_number_of_ranks_that_does_not_fit_is_refused(pair: Pair, tmp_path: Path) -> None:
    config = ds_json(tmp_path / "ds.json", 2, "fp32")
    result = run([sys.executable, *train(pair, config, tmp_path / "run", "--plan", 3)])
    assert result.returncode == 2
    assert "train_batch_size 16 is no multiple of train_micro_batch_size_per_gpu 4 x 3 ranks" in result.stdout


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0.0123, 59.0, 61, 3723)] == ["0.0123 s", "59 s", "0:01:01", "1:02:03"]
