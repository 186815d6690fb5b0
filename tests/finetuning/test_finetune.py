"""finetune.py from the command line, on small tasks that can be learnt: scores, files, resumption, ranks, refusals."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers

from command_line import parse
from evaluation.metrics import score
from evaluation.results import read_result
from evaluation.squad_files import read_squad
from evaluation.squad_score import score_answers
from evaluation.tasks import TASKS
from finetune import main
from finetuning.config import FinetuneConfig
from tests.conftest import Toy
from tests.finetuning.toy_tasks import write_rte, write_squad, write_sst2, write_stsb
from tests.launch import deepspeed, free_port, start, torchrun

FAST = ("--learning_rates", "3e-3", "--batch_sizes", "16", "--precision", "fp32", "--max_length", "32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """glue/ and squad/ below, as in a folder of several tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    for write in (write_sst2, write_rte, write_stsb):
        write(folder / "glue")
    write_squad(folder / "squad")
    return folder


@pytest.fixture(scope="module")
def taught(toy: Toy, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy teacher fine-tuned on SST-2."""
    output = tmp_path_factory.mktemp("taught")
    assert (
        finetune(
            "--model", toy.teacher, "--task", "sst2", "--data", data, "--epochs", 6, "--seeds", 1, "--output", output
        )
        == 0
    )
    return output


def finetune(*arguments: object) -> int:
    return main(parse(FinetuneConfig, [str(a) for a in (*FAST, *arguments)], ""))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_what_is_reported_is_what_the_saved_predictions_and_the_saved_model_give(taught: Path, data: Path) -> None:
    result = read_result(taught / "sst2")
    [run] = result.runs
    [folder] = (taught / "sst2/runs").iterdir()
    rows = lines(folder / "validation.tsv")
    labels = np.array([int(row["label"]) for row in rows])
    report = score(TASKS["sst2"], np.array([int(row["prediction"]) for row in rows]), labels)
    assert run.scores["validation"] == report.scores == result.median()["validation"]
    assert report.scores["accuracy"] > 0.9  # learnable, and learnt
    classifier = transformers.pipeline("text-classification", str(taught / "sst2/model"))
    texts = [row["sentence"] for row in lines(data / "glue/SST-2/dev.tsv")]
    assert [answer["label"] for answer in classifier(texts)] == [
        TASKS["sst2"].labels[int(row["prediction"])] for row in rows
    ]
    assert (result.data["train"].examples, result.data["validation"].examples) == (256, 40)
    assert (folder / "tensorboard").is_dir()


def test_finished_runs_are_not_run_again_and_the_others_are(
    toy: Toy, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("--model", toy.teacher, "--task", "sst2", "--data", data, "--epochs", 1, "--output", tmp_path)
    assert finetune(*command, "--seeds", 2) == 0
    before = read_result(tmp_path / "sst2")
    runs = sorted((tmp_path / "sst2/runs").iterdir())
    assert [folder.name[-1] for folder in runs] == ["0", "1"]
    written = (runs[0] / "run.json").stat().st_mtime_ns
    (runs[1] / "run.json").unlink()  # as if it had been killed at its end
    capfd.readouterr()
    assert finetune(*command, "--seeds", 3) == 0
    printed = capfd.readouterr().out
    assert "SST-2 1/3" not in printed
    assert "SST-2 2/3" in printed
    after = read_result(tmp_path / "sst2")
    assert (runs[0] / "run.json").stat().st_mtime_ns == written
    for old, new in zip(before.runs, after.runs, strict=False):
        assert (old.scores, old.train_loss) == (new.scores, new.train_loss)  # the same run, bit for bit
    losses = [run.train_loss for run in after.runs]
    assert len(set(losses)) == 3
    assert finetune(*command, "--seeds", 3, "--train_examples", 50) == 2
    assert "has runs with examples" in capfd.readouterr().err


def test_the_grid_chooses_by_the_median_and_keeps_all(toy: Toy, data: Path, tmp_path: Path) -> None:
    arguments = ("--model", toy.teacher, "--task", "rte", "--data", data, "--seeds", 3, "--output", tmp_path)
    assert finetune(*arguments, "--learning_rates", "1e-9", "3e-3", "--epochs", 1, 2, "--batch_sizes", 32) == 0
    result = read_result(tmp_path / "rte")
    assert len(result.runs) == 2 * 2 * 3
    medians = {
        cell: np.median([r.scores["validation"]["accuracy"] for r in runs]) for cell, runs in result.by_cell.items()
    }
    assert medians[result.chosen] == max(medians.values()) == result.headline(result.chosen)
    best = max(run.scores["validation"]["accuracy"] for run in result.runs)
    saved = json.loads((tmp_path / "rte/model/run.json").read_text())
    assert saved["scores"]["validation"]["accuracy"] == best


@pytest.mark.slow  # one of the runs under torchrun
def test_two_ranks_and_micro_batches_do_what_one_rank_does(toy: Toy, data: Path, tmp_path: Path) -> None:
    """Without dropout, in fp32: the loss of training and the predictions agree to rounding."""
    still = tmp_path / "still"
    shutil.copytree(toy.teacher, still)
    shape = json.loads((still / "config.json").read_text())
    (still / "config.json").write_text(
        json.dumps(shape | {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0})
    )
    common = ["--model", still, "--task", "sst2", "--data", data, "--epochs", 1, "--seeds", 1, *FAST, "--output"]
    assert finetune(*common, tmp_path / "one") == 0
    assert finetune(*common, tmp_path / "accumulated", "--micro_batch", 4) == 0
    launched = torchrun(2, "finetune.py", *common, tmp_path / "two")
    assert launched.returncode == 0, launched.stdout
    assert launched.stdout.count("SST-2 1/1") == 1
    one, accumulated, two = (read_result(tmp_path / name / "sst2").runs[0] for name in ("one", "accumulated", "two"))
    assert accumulated.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    logits = {}
    for name in ("one", "accumulated", "two"):
        [folder] = (tmp_path / name / "sst2/runs").iterdir()
        rows = lines(folder / "validation.tsv")
        logits[name] = np.array([[float(row["logit_0"]), float(row["logit_1"])] for row in rows])
    np.testing.assert_allclose(logits["accumulated"], logits["one"], atol=2e-3)
    np.testing.assert_allclose(logits["two"], logits["one"], atol=2e-3)
    assert two.scores == one.scores


@pytest.mark.slow
def test_a_deepspeed_configuration_is_accepted(toy: Toy, data: Path, tmp_path: Path) -> None:
    arguments = ("--model", toy.teacher, "--task", "sst2", "--data", data, "--epochs", 6, "--seeds", 1, *FAST)
    config = "ds_configs/finetune/zero2.json"
    launched = deepspeed(2, "finetune.py", *arguments, "--ds_config", config, "--output", tmp_path)
    assert launched.returncode == 0, launched.stdout
    assert read_result(tmp_path / "sst2").runs[0].scores["validation"]["accuracy"] > 0.9
    transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "sst2/model")


def test_a_second_distillation_makes_its_student_of_the_teacher(
    taught: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher = taught / "sst2/model"
    arguments = ("--teacher", teacher, "--task", "sst2", "--data", data, "--seeds", 1, "--epochs", 6)
    assert finetune(*arguments, "--output", tmp_path / "a", "--cosine_weight", 0.5, "--task_weight", 0) == 0
    printed = capfd.readouterr().out
    assert "0.5 x soft targets at temperature 2 + 0 x task + 0.5 x cosine" in printed
    result = read_result(tmp_path / "a/sst2")
    assert result.teacher == str(teacher)
    assert result.model == f"half of {teacher}"
    assert result.median()["validation"]["accuracy"] > 0.9  # no label was read: all from the teacher
    kept = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "a/sst2/model")
    assert kept.config.num_hidden_layers == 2
    assert finetune(*arguments, "--model", "bilstm", "--output", tmp_path / "b", "--epochs", 20) == 0
    assert read_result(tmp_path / "b/sst2").median()["validation"]["accuracy"] > 0.8
    assert finetune(*arguments, "--init", "random", "--output", tmp_path / "c", "--student_layers", 1) == 0
    assert read_result(tmp_path / "c/sst2").parameters < result.parameters


def test_a_teacher_of_another_task_is_refused_and_leaves_nothing(
    toy: Toy, taught: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", toy.teacher, "--data", data, "--teacher", taught / "sst2/model", "--output", tmp_path / "a")
    assert finetune("--task", "rte", *arguments) == 2
    assert "has the classes negative, positive in this order" in capfd.readouterr().err
    assert not (tmp_path / "a").exists()


def test_runs_with_and_without_a_teacher_do_not_mix(
    toy: Toy, taught: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("--model", toy.teacher, "--task", "sst2", "--data", data, "--epochs", 1, "--seeds", 1)
    command = (*command, "--output", tmp_path)
    assert finetune(*command, "--teacher", taught / "sst2/model") == 0
    assert finetune(*command) == 2
    assert "these would have it not set" in capfd.readouterr().err


def test_the_model_that_is_kept_is_the_best_of_all_commands(toy: Toy, data: Path, tmp_path: Path) -> None:
    command = ("--model", toy.teacher, "--task", "sst2", "--data", data, "--seeds", 1, "--output", tmp_path)
    good, poor = ("--epochs", 6), ("--epochs", 1, "--learning_rates", "1e-9")
    assert finetune(*command, *good) == 0
    best = read_result(tmp_path / "sst2")
    assert best.saved == "model"
    assert finetune(*command, *poor) == 0
    assert read_result(tmp_path / "sst2").saved == ""  # it is of no run of this result
    record = json.loads((tmp_path / "sst2/model/run.json").read_text())
    assert record["scores"]["validation"] == best.runs[0].scores["validation"]
    assert finetune(*command, *good) == 0
    assert read_result(tmp_path / "sst2") == best


@pytest.mark.slow
def test_a_full_disk_ends_all_ranks_and_loses_nothing(toy: Toy, data: Path, tmp_path: Path) -> None:
    arguments = ["--model", toy.teacher, "--task", "sst2", "--data", data, "--epochs", 1, "--seeds", 2, *FAST]
    port = str(free_port())
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def run_ranks(limit: str) -> list[tuple[int, str]]:
        """Without a launcher, which would end the one that waits for the other."""
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", sys.executable, "finetune.py", *arguments]
        ranks = [start([*command, "--output", tmp_path], **common, RANK=r, LOCAL_RANK=r) for r in ("0", "1")]
        return [(rank.wait(200), rank.stdout.read()) for rank in ranks]  # type: ignore[union-attr]

    (first, said), (second, nothing) = run_ranks("64")  # no file above 64 KiB: not the weights
    assert (first, second) == (4, 4), said + nothing
    assert said.count("\nerror: ") == 1
    assert "model.partial" in said
    assert "error" not in nothing
    assert [code for code, _ in run_ranks("unlimited")] == [0, 0]
    assert len(read_result(tmp_path / "sst2").runs) == 2
    assert (tmp_path / "sst2/model/model.safetensors").exists()


def test_a_regression_is_learnt_and_taught(toy: Toy, data: Path, tmp_path: Path) -> None:
    arguments = ("--task", "stsb", "--data", data, "--seeds", 1, "--epochs", 2)
    assert finetune("--model", toy.teacher, *arguments, "--output", tmp_path / "a") == 0
    scores = read_result(tmp_path / "a/stsb").median()["validation"]
    assert set(scores) == {"pearson", "spearman"}
    assert all(math.isfinite(value) for value in scores.values())
    assert finetune("--teacher", tmp_path / "a/stsb/model", *arguments, "--output", tmp_path / "b") == 0
    taught = read_result(tmp_path / "b/stsb")
    assert taught.settings["distillation"] == 0.5


def test_squad_is_learnt_and_taught(toy: Toy, data: Path, tmp_path: Path) -> None:
    arguments = ("--task", "squad", "--data", data, "--seeds", 1, "--epochs", 3, "--max_length", 24)
    assert finetune("--model", toy.teacher, *arguments, "--output", tmp_path / "a") == 0
    result = read_result(tmp_path / "a/squad")
    [folder] = (tmp_path / "a/squad/runs").iterdir()
    answers = json.loads((folder / "validation.json").read_text())
    questions = read_squad(data / "squad/dev-v1.1.json").examples
    report = score_answers(answers, {q.id: [a.text for a in q.label] for q in questions})  # type: ignore[union-attr]
    assert result.median()["validation"] == report.scores
    n_best = json.loads((folder / "validation.nbest.json").read_text())
    assert all(n_best[name][0]["text"] == text for name, text in answers.items())
    assert all(text in question.texts[1] for question in questions for text in [answers[question.id]])
    assert finetune("--teacher", tmp_path / "a/squad/model", *arguments, "--output", tmp_path / "b") == 0
    assert math.isfinite(read_result(tmp_path / "b/squad").runs[0].train_loss)


def test_a_run_that_diverges_says_so(toy: Toy, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--model", toy.teacher, "--task", "stsb", "--data", data, "--seeds", 1, "--epochs", 1)
    assert finetune(*arguments, "--learning_rates", "1e30", "--output", tmp_path) == 3
    assert "not finite" in capfd.readouterr().out
    assert math.isnan(read_result(tmp_path / "stsb").runs[0].scores["validation"]["pearson"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "{toy}", "--task", "sst2", "--data", "{data}/rte"), "'{data}/rte' is no folder"),
        (("--model", "{toy}", "--task", "mrpc", "--data", "{data}"), "msr_paraphrase"),
        (
            ("--model", "{toy}", "--task", "sst2", "--data", "{data}", "--max_length", "65"),
            "has positions for 64 tokens",
        ),
        (("--model", "{toy}", "--task", "sst2", "--data", "{data}", "--micro_batch", "5"), "micro-batches of 5"),
        (("--model", "{toy}", "--task", "sst2", "--data", "{data}", "--precision", "fp16"), "fp16 needs a GPU"),
        (("--model", "{toy}", "--task", "sst2", "--data", "{data}", "--teacher", "{toy}"), "fine-tune it first"),
        (
            ("--model", "{toy}", "--task", "sst2", "--data", "{data}", "--ds_config", "ds_configs/zero2.json"),
            "averages",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    toy: Toy, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    filled = [part.format(toy=toy.teacher, data=data) for part in arguments]
    assert finetune(*filled, "--output", tmp_path / "out") == 2
    error = capfd.readouterr().err
    assert message.format(data=data) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out/sst2/runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "sst2"), "give --model FOLDER"),
        (("--task", "sst3", "--model", "x"), "there is no task 'sst3'"),
        (("--task", "sst2", "sst2", "--model", "x"), "each once"),
        (("--task", "sst2", "--model", "bilstm"), "give --teacher FOLDER"),
        (("--task", "sst2", "--model", "x", "--cosine_weight", "1"), "needs a --teacher"),
        (("--task", "squad", "--model", "x", "--teacher", "y", "--cosine_weight", "1"), "spans have no such vector"),
        (("--task", "sst2", "--model", "bilstm", "--teacher", "y", "--cosine_weight", "1"), "no such hidden states"),
        (("--task", "sst2", "rte", "--teacher", "y"), "it knows one task"),
        (("--task", "sst2", "--model", "x", "--seeds", "0"), "--seeds 0"),
        (("--task", "sst2", "--model", "x", "--learning_rates", "-1"), "--learning_rates -1"),
        (("--task", "sst2", "rte", "--model", "x", "--train_data", "y"), "it is one task's"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(FinetuneConfig, arguments, "")
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.err + printed.out).split())
