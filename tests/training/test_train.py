"""train.py as its users start it: launchers, run folder, stop and start, the golden curve."""

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer, DistilBertForMaskedLM

from data.batching import Blend
from tests.conftest import Toy, prepare, sentences
from tests.launch import ROOT, deepspeed, ds_config, kill_when, metrics, run, torchrun, torchrun_command
from training.parts import PARTS, SHARES

TRAINING_FIELDS = {
    *(
        "update",
        "epoch",
        "sequences",
        "tokens",
        "loss",
        "loss_distillation",
        "loss_mlm",
        "loss_cosine",
        "learning_rate",
    ),
    *("grad_norm", "loss_scale", "skipped_updates", "tokens_per_second", "mfu", *SHARES),
    *("peak_memory_bytes", "loss_distillation_weighted", "loss_mlm_weighted", "loss_cosine_weighted"),
}
EVALUATION_FIELDS = {
    *("update", "eval_mlm_loss", "eval_mlm_accuracy", "eval_perplexity", "eval_distillation", "eval_agreement"),
    "eval_cosine",
}


def flags(toy: Toy, config: Path, output: Path, **changes: object) -> list[object]:
    values: dict[str, object] = {
        "ds_config": config,
        "teacher": toy.teacher,
        "data": toy.train,
        "max_length": 40,
        "max_updates": 6,
        "log_every": 1,
        "output": output,
        **changes,
    }
    named: list[object] = []
    for name, value in values.items():
        if value is not None:
            named += [f"--{name}", *(value if isinstance(value, tuple) else (value,))]
    return ["train.py", *named, "--no_check_teacher"]


@pytest.fixture(scope="module")
def distilled(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 run under the deepspeed launcher on two ranks, with evaluation and checkpoints."""
    folder = tmp_path_factory.mktemp("deepspeed")
    config = ds_config(folder / "ds.json", bf16={"enabled": True})
    more = {"eval_data": toy.heldout, "eval_every": 3, "checkpoint_every": 3}
    result = deepspeed(2, *flags(toy, config, folder / "run", **more))
    assert result.returncode == 0, result.stdout[-4000:]
    (folder / "output.txt").write_text(result.stdout)
    return folder / "run"


def test_run_folder(distilled: Path) -> None:
    assert {f.name for f in distilled.iterdir()} == {
        *("config.json", "metrics.jsonl", "tensorboard", "checkpoints", "student", "log.txt"),
        *("attempts.jsonl", "heartbeats", "lock", "stacks"),
    }
    lines = metrics(distilled)
    training = [line for line in lines if "loss" in line]
    assert [line["update"] for line in training] == [1, 2, 3, 4, 5, 6]
    assert all(set(line) == TRAINING_FIELDS for line in training)
    assert [line["update"] for line in lines if "eval_mlm_loss" in line] == [0, 3, 6]
    assert all(set(line) == EVALUATION_FIELDS for line in lines if "eval_mlm_loss" in line)
    assert "eval_teacher_mlm_loss" in lines[0]
    flags_recorded = json.loads((distilled / "config.json").read_text())["flags"]
    assert flags_recorded["max_length"] == 40
    assert flags_recorded["weight_distillation"] == 5.0


def test_metrics_are_consistent(distilled: Path) -> None:
    for line in metrics(distilled):
        if "loss" in line:
            assert line["loss_distillation_weighted"] == pytest.approx(5 * line["loss_distillation"])
            parts = sum(line[f"loss_{name}_weighted"] for name in ("distillation", "mlm", "cosine"))
            assert line["loss"] == pytest.approx(parts, rel=1e-5)
            assert line["sequences"] == line["update"] * 16
            assert 0 < line["mfu"] < 1
            assert all(0 <= line[share] < 1 for share in SHARES)
            assert sum(line[share] for share in SHARES) <= 1
            assert min(line[f"{part}_share"] for part in PARTS) > 0
            assert line["peak_memory_bytes"] > 50e6
        if "eval_mlm_loss" in line:
            assert line["eval_perplexity"] == pytest.approx(torch.tensor(line["eval_mlm_loss"]).exp().item(), rel=1e-5)
    rates = [line["learning_rate"] for line in metrics(distilled) if "loss" in line]
    assert rates == pytest.approx([1e-3 * (6 - k) / 6 for k in range(6)])  # 5% of 6 updates is no warm-up


def test_tensorboard_shows_the_same_figures(distilled: Path) -> None:
    reader = EventAccumulator(str(distilled / "tensorboard"))
    reader.Reload()
    tags = set(reader.Tags()["scalars"])
    assert {
        "loss/loss",
        "loss/loss_mlm",
        "loss/loss_distillation_weighted",
        "optim/grad_norm",
        "eval/eval_agreement",
    } <= tags
    assert {"throughput/tokens_per_second", "memory/peak_memory_bytes", "optim/learning_rate"} <= tags
    shown = [event.value for event in reader.Scalars("loss/loss")]
    assert shown == pytest.approx([line["loss"] for line in metrics(distilled) if "loss" in line], rel=1e-6)
    assert reader.Tags()["tensors"]  # the layout and the configuration


def test_student_is_a_hugging_face_folder(distilled: Path) -> None:
    student = DistilBertForMaskedLM.from_pretrained(distilled / "student")
    tokenizer = AutoTokenizer.from_pretrained(distilled / "student")
    ids = tokenizer("the bolan sees the doret .", return_tensors="pt")
    assert student(input_ids=ids["input_ids"]).logits.shape == (1, ids["input_ids"].shape[1], len(tokenizer))


def test_log_is_lines_not_bars(distilled: Path) -> None:
    output = (distilled.parent / "output.txt").read_text()
    assert "\r" not in output
    assert "\x1b[" not in output
    assert output.count("update 3/6") == 1


def test_training_learns(toy: Toy, tmp_path: Path) -> None:
    """Pre-training a model of the toy language from nothing under torchrun: the same loop, without a teacher."""
    shape = json.loads((toy.teacher / "config.json").read_text())
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    optimizer = {"type": "AdamW", "params": {"lr": 5e-3, "weight_decay": 0.01, "torch_adam": True}}
    config = ds_config(tmp_path / "ds.json", optimizer=optimizer)
    more = {"objective": "mlm", "architecture": tmp_path / "shape.json", "teacher": None, "eval_data": toy.heldout}
    result = torchrun(2, *flags(toy, config, tmp_path / "run", max_updates=60, log_every=20, **more))
    assert result.returncode == 0, result.stdout[-4000:]
    evaluations = [line for line in metrics(tmp_path / "run") if "eval_mlm_loss" in line]
    assert evaluations[-1]["eval_mlm_loss"] < evaluations[0]["eval_mlm_loss"] - 1.0
    assert "loss_distillation" not in metrics(tmp_path / "run")[-2]
    assert json.loads((tmp_path / "run/student/config.json").read_text())["model_type"] == "bert"


def test_resume_after_a_kill_continues_bit_for_bit(toy: Toy, tmp_path: Path) -> None:
    """On a weighted blend. Dropout is on, so the random generators count. Everything is killed once the checkpoint of
    update 4 is committed."""
    config = ds_config(tmp_path / "ds.json")
    (tmp_path / "more.txt").write_text(sentences(2, 10))
    tokenizer = f"{toy.train}.tokenizer"
    prepare("--input", tmp_path / "more.txt", "--tokenizer", tokenizer, "--workers", 1, "--output", tmp_path / "more")
    common = {"max_updates": 8, "checkpoint_every": 4, "eval_data": toy.heldout, "eval_every": 4}
    common |= {"data": (f"{toy.train}:3", f"{tmp_path / 'more'}:1")}
    whole = torchrun(2, *flags(toy, config, tmp_path / "whole", **common))
    assert whole.returncode == 0, whole.stdout[-4000:]
    kill_when(torchrun_command(2, *flags(toy, config, tmp_path / "killed", **common)), "checkpoint of update 4:")
    assert not (tmp_path / "killed/student").exists()
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"update": 6, "lo')  # torn by the crash
    resumed = torchrun(2, *flags(toy, config, tmp_path / "killed", **common), "--resume")
    assert resumed.returncode == 0, resumed.stdout[-4000:]
    assert "updates 4 to 8" in resumed.stdout
    assert f"{tmp_path / 'more'}: 10 documents" in resumed.stdout
    more = Blend.open([str(tmp_path / "more")], max_length=40).num_sequences
    line = next(line for line in metrics(tmp_path / "killed") if line["update"] == 6 and "loss" in line)
    assert line["epoch_more"] == pytest.approx(0.25 * 6 * 16 / more)
    clocks = {"tokens_per_second", "mfu", "peak_memory_bytes", *SHARES}
    expected, got = (
        [{name: value for name, value in line.items() if name not in clocks} for line in metrics(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert got == expected
    weights, resumed_weights = (
        load_file(tmp_path / name / "student/model.safetensors") for name in ("whole", "killed")
    )
    assert all(torch.equal(value, resumed_weights[name]) for name, value in weights.items())


@pytest.mark.slow  # half a minute of compilation
def test_compiled_run(toy: Toy, tmp_path: Path) -> None:
    """Under ZeRO-2 on two ranks: the losses of a plain run, and after the first update nothing is compiled again.
    Then with a teacher in 8 bit, whose drift is the first thing reported."""
    plain, compiled, float8 = tmp_path / "plain", tmp_path / "compiled", tmp_path / "float8"
    config = ds_config(tmp_path / "ds.json")
    common = {"teacher_dtype": "fp32", "eval_data": toy.heldout, "eval_every": 3}
    runs = [
        [str(part) for part in flags(toy, config, plain, **common)[1:]],
        [*(str(part) for part in flags(toy, config, compiled, **common)[1:]), "--compile"],
        [*(str(part) for part in flags(toy, config, float8, **(common | {"teacher_dtype": "fp8"}))[1:]), "--compile"],
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    command = torchrun_command(2, ROOT / "tests/training/run_many.py", tmp_path / "runs.json")
    result = run(command, TORCH_LOGS="recompiles")
    assert result.returncode == 0, result.stdout[-4000:]
    for expected, got in zip(metrics(plain), metrics(compiled), strict=True):
        for name in expected.keys() & {"loss", "loss_cosine", "grad_norm", "eval_mlm_loss", "eval_distillation"}:
            assert got[name] == pytest.approx(expected[name], rel=1e-4), name
    # Once for each of teacher, student in training and student in evaluation, whatever the number of tokens.
    start, *runs_of_updates = result.stdout.split("update 1/6")[1:]
    assert 0 < start.count("Recompiling function") <= 2 * 2 * 8
    assert [text.partition("update 6/6")[0].count("Recompiling function") for text in runs_of_updates] == [0, 0]
    weights, compiled_weights = (load_file(folder / "student/model.safetensors") for folder in (plain, compiled))
    assert weights.keys() == compiled_weights.keys()
    exact, rounded = metrics(plain), metrics(float8)
    assert 1e-6 < rounded[0]["eval_teacher_drift"] < 0.02
    assert rounded[-2]["loss_distillation"] == pytest.approx(exact[-2]["loss_distillation"], rel=0.05)
    assert rounded[-2]["loss_distillation"] != exact[-2]["loss_distillation"]


def test_resume_refuses_another_run(toy: Toy, distilled: Path, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json", bf16={"enabled": True})
    other_seed = torchrun(2, *flags(toy, config, distilled, seed=3), "--resume")
    assert other_seed.returncode != 0
    assert other_seed.stdout.count("error: --resume") == 1
    assert "seed was 0 and is 3" in other_seed.stdout
    learning_rate = {"type": "AdamW", "params": {"lr": 3e-3, "torch_adam": True}}
    other = ds_config(tmp_path / "other.json", bf16={"enabled": True}, optimizer=learning_rate)
    blend = (f"{toy.train}:3", f"{toy.heldout}:1")
    for arguments, message in (
        (flags(toy, other, distilled), "ds_config was {'optimizer'"),
        (
            flags(toy, config, distilled, data=blend),
            f"on --data {toy.train}, not {' '.join(blend)}. Corpora, their order",
        ),
    ):
        assert message in run([sys.executable, *arguments, "--resume"]).stdout


@pytest.fixture(scope="module")
def golden_run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 updates of the toy pair in fp32 on one rank; the profile of two of them must change nothing."""
    folder = tmp_path_factory.mktemp("golden")
    arguments = flags(toy, ds_config(folder / "ds.json"), folder / "run", max_updates=20, teacher_dtype="fp32")
    result = run([sys.executable, *arguments, "--profile", 2])
    assert result.returncode == 0, result.stdout[-4000:]
    return folder / "run"


def test_golden_curve(golden_run: Path) -> None:
    """What a refactor must reproduce. A changed recipe writes it anew, on purpose:
    DISTILLERY_WRITE_GOLDEN=1 pytest tests/training/test_train.py -k golden."""
    names = ("loss", "loss_distillation", "loss_mlm", "loss_cosine", "grad_norm", "tokens")
    curve = [[line[name] for name in names] for line in metrics(golden_run) if "loss" in line]
    golden = Path(__file__).with_name("golden_curve.json")
    if os.environ.get("DISTILLERY_WRITE_GOLDEN") == "1":
        rows = ",\n".join(json.dumps(row) for row in curve)
        golden.write_text(f'{{"columns": {json.dumps(names)},\n"rows": [\n{rows}\n]}}\n')
    expected = json.loads(golden.read_text())
    assert expected["columns"] == list(names)
    # CPUs and torch versions order fp32 sums differently; a changed recipe is many orders of magnitude beyond this.
    torch.testing.assert_close(torch.tensor(curve), torch.tensor(expected["rows"]), rtol=2e-5, atol=1e-6)


def test_profile_shows_the_parts_of_two_updates(golden_run: Path) -> None:
    """The trace is judged by itself; the table against times measured without a profiler."""
    files = {file.name: file for file in (golden_run / "profile").iterdir()}
    assert set(files) == {"updates_3_to_4.pt.trace.json.gz", "updates_3_to_4.txt"}
    with gzip.open(files["updates_3_to_4.pt.trace.json.gz"], "rt") as file:
        events = json.load(file)["traceEvents"]
    seen = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    micro_batches = 2 * 16 // 4
    assert {part: seen[part] for part in PARTS if part != "communication"} == dict.fromkeys(
        ("teacher", "student", "head", "backward", "optimizer"), micro_batches
    )
    head, *rows = files["updates_3_to_4.txt"].read_text().splitlines()
    *items, together, everything = [row.split(maxsplit=3) for row in rows]
    assert head.split() == ["ms", "share", "calls", "item"]
    assert len(items) == 10
    times = [float(item[0]) for item in items]
    assert times == sorted(times, reverse=True)
    assert float(together[0]) == pytest.approx(sum(times), abs=0.01)
    steps = sum(event["dur"] for event in events if event["name"].startswith("ProfilerStep#")) / 1000
    assert 0.2 * steps < float(everything[0]) < steps  # operators run one after another here, and some time is Python's
    assert files["updates_3_to_4.txt"].read_text() in (golden_run / "log.txt").read_text()
