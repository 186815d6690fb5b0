"""prune.py from its flags to its files and exit codes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from command_line import parse
from data.batching import Corpus, fixed_batches
from evaluation.heldout import evaluate
from exporting.plain import plain_model
from model.hub import load_model
from model.pruned_heads import attention_output
from prune import main
from pruning import table
from pruning.config import PruneConfig
from pruning.heads import remove_heads
from pruning.measuring import TOLERANCE, largest_difference
from tests.conftest import Toy
from tests.finetuning.toy_tasks import write_sst2
from tests.launch import ROOT, run
from tests.pruning.test_trimming import folder_of, texts


def prune(*arguments: object) -> int:
    return main(parse(PruneConfig, [str(a) for a in arguments], ""), f"prune {arguments[-1]}")


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "pruning.json").read_text())
    return content


@pytest.fixture(scope="module")
def task_model(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy teacher under a new head for SST-2, with result.json of another model nowhere near."""
    folder = tmp_path_factory.mktemp("task") / "model"
    shutil.copytree(toy.teacher, folder)
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, id2label=labels, label2id={name: number for number, name in labels.items()}
    )
    model.save_pretrained(folder)
    return folder


def test_a_masked_lm_loses_heads_layers_and_words_and_says_what_that_costs(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("--model", toy.teacher, "--data", toy.heldout, "--eval_examples", 20, "--output", out)
    pruned = ("--prune_heads", 0.5, "--layers", 0, 2, 3, "--trim_vocab", toy.train, "--sweep", 0, 0.5)
    assert prune(*common, *pruned, "--sentences", 4, "--rounds", 2) == 0
    content = report(out)
    before, after = content["before"], content["after"]
    assert (before["layers"], before["heads"]) == (4, [2, 2, 2, 2])
    assert after["layers"] == 3
    assert sum(after["heads"]) == 3
    assert min(after["heads"]) == 1
    assert content["vocabulary"]["sample"]["same"] == content["vocabulary"]["sample"]["texts"] > 100
    assert content["difference"] <= 1e-4
    model = transformers.AutoModelForMaskedLM.from_pretrained(out)
    plain = plain_model(model)
    assert list(plain.shape.num_heads) == after["heads"]
    assert sum(p.numel() for p in plain.parameters()) == after["parameters"] < before["parameters"]
    # Weighed without the heads: less than the folder, which keeps its shapes.
    assert 0 < after["weights_bytes"] - 4 * after["parameters"] < 10_000
    assert after["weights_bytes"] < (out / "model.safetensors").stat().st_size
    assert after["vocab_size"] == model.config.vocab_size == len(transformers.AutoTokenizer.from_pretrained(out))
    assert load_model(out).config.num_layers == 3  # a teacher for train.py, too
    assert [one["share"] for one in content["tried"]] == [0, 0.5]
    assert content["tried"][0]["scores"] != before["scores"]  # with these layers
    assert "| after | 3 | 3 |" in (out / "PRUNING.md").read_text()
    assert content["speed"]["after"]["speed_up"] > 0


def test_scores_are_those_of_the_held_out_evaluation(toy: Toy, tmp_path: Path) -> None:
    """Nothing but two heads taken away: the figures of the project's own encoder, on the same text and masks."""
    out = tmp_path / "out"
    flags = ("--prune_heads", 0.25, "--eval_examples", 30, "--sentences", 0, "--max_length", 64)
    assert prune("--model", toy.teacher, "--data", toy.heldout, *flags, "--output", out) == 0
    batches = fixed_batches(
        Corpus.open(toy.heldout, max_length=64),
        num_sequences=30,
        sequences_per_batch=8,
        seed=0,
        rank=0,
        num_ranks=1,
        mask_probability=0.15,
        mask_smoothing=0.7,
    )
    for folder, side in ((toy.teacher, "before"), (out, "after")):
        figures = evaluate(
            load_model(folder), None, batches, temperature=1, device=torch.device("cpu"), reduce=lambda sums: sums
        )
        assert report(out)[side]["scores"]["MLM loss"] == pytest.approx(figures["eval_mlm_loss"], rel=1e-5)
        assert report(out)[side]["scores"]["accuracy"] == pytest.approx(figures["eval_mlm_accuracy"])
    assert report(out)["speed"] == {}


def test_a_smaller_vocabulary_alone_costs_nothing_where_its_words_suffice(toy: Toy, tmp_path: Path) -> None:
    """The same words to choose from, the same figures: a loss over fewer candidates would look like a better model."""
    out, flags = tmp_path / "out", ("--eval_examples", 20, "--sentences", 4, "--rounds", 1)
    common = ("--model", toy.teacher, "--data", toy.heldout, *flags, "--output", out)
    assert prune(*common, "--trim_vocab", toy.train) == 0
    content = report(out)
    assert content["after"]["vocab_size"] < content["before"]["vocab_size"]
    for metric, value in content["before"]["scores"].items():
        assert content["after"]["scores"][metric] == pytest.approx(value, rel=1e-5)
    assert "others are not in it" not in content["measured"]
    seen = tmp_path / "seen.txt"
    seen.write_text("the dolan sees the kitok .\n")
    assert prune(*common, "--trim_vocab", seen) == 0  # in the place of the first
    content = report(out)
    assert "others are not in it" in content["measured"]
    assert content["vocabulary"]["measured"]["same"] < 20


@torch.no_grad()
def test_a_head_that_is_called_gone_and_is_not_is_found(toy: Toy, tmp_path: Path) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(toy.teacher).eval()
    remove_heads(model, {1: (0,)})
    rows = [list(range(5, 20)), [7, 8, 9]]
    assert largest_difference(model, rows) <= 1e-5
    attention_output(model, 1).weight[0, 3] = 1
    assert largest_difference(model, rows) > TOLERANCE
    attention_output(model, 1).weight[0, 3] = torch.nan
    assert not largest_difference(model, rows) <= TOLERANCE


def test_a_fine_tuned_model_is_measured_on_its_task_and_pruned_again(
    task_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out, again = write_sst2(tmp_path / "glue", num_train=32), tmp_path / "out", tmp_path / "again"
    fast = ("--data", data, "--sentences", 2, "--rounds", 1, "--examples", 16)
    assert prune("--model", task_model, *fast, "--task", "sst2", "--prune_heads", 0.25, "--output", out) == 0
    content = report(out)
    assert (content["task"], content["heads"]["examples"]) == ("sst2", 16)
    classifier = transformers.pipeline("text-classification", str(out))
    rows = [line.split("\t") for line in (data / "SST-2/dev.tsv").read_text().splitlines()[1:]]
    right = [
        answer["label"] == ("negative", "positive")[int(label)]
        for answer, (_, label) in zip(classifier([text for text, _ in rows]), rows, strict=True)
    ]
    assert content["after"]["scores"]["accuracy"] == pytest.approx(sum(right) / len(right))
    # The folder itself says which task it is, and which heads are gone.
    assert prune("--model", out, *fast, "--prune_heads", 0.5, "--output", again) == 0
    assert sum(report(again)["before"]["heads"]) == 6
    assert sum(report(again)["after"]["heads"]) == 4
    capfd.readouterr()
    config = table.TableConfig(folders=(f"a={out}",), append=str(tmp_path / "R.md"))
    assert table.main(config, "table") == 0
    assert "| a | 4 | 6 |" in (tmp_path / "R.md").read_text()
    assert table.main(table.TableConfig(folders=(str(out), str(again))), "table") == 2
    assert "one model a table" in capfd.readouterr().err


def test_a_byte_level_model_loses_heads_and_words_together(tmp_path: Path) -> None:
    """RoBERTa's layout, which counts positions from its padding id: no other token may become that one."""
    folder, out = folder_of("bpe", tmp_path / "model"), tmp_path / "out"
    names = {0: "negative", 1: "positive"}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, id2label=names)
    model.save_pretrained(folder)
    data = write_sst2(tmp_path / "glue", num_train=16)
    (tmp_path / "seen.txt").write_text("\n\n".join(texts(6, 3)), encoding="utf-8")
    flags = ("--task", "sst2", "--prune_heads", 0.5, "--trim_vocab", tmp_path / "seen.txt", "--vocab_size", 290)
    fast = ("--max_length", 30, "--sentences", 12, "--rounds", 1)
    assert prune("--model", folder, "--data", data, *flags, *fast, "--output", out) == 0
    content = report(out)
    assert content["after"]["vocab_size"] <= 290
    assert sum(content["after"]["heads"]) == 4
    assert content["difference"] <= 1e-5


def test_what_does_not_fit_is_refused_in_one_line(
    toy: Toy, task_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other, empty = tmp_path / "other", tmp_path / "empty"
    shutil.copytree(toy.teacher, other)
    lines = (other / "vocab.txt").read_text().splitlines()
    (other / "tokenizer.json").unlink()
    (other / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    empty.mkdir()
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    model = ("--model", toy.teacher, "--data", toy.heldout)
    heads = ("--prune_heads", 0.25)
    for expected, arguments in (
        ("0.9: 7 of 8 heads gone would leave a layer without any", (*model, "--prune_heads", 0.9)),
        ("--sweep 0.95: 8 of 8 heads", (*model, "--sweep", 0.5, 0.95)),
        ("--layers 4: ", (*model, "--layers", 0, 4)),
        ("no config.json in", ("--model", empty, "--data", toy.heldout, *heads)),
        ("no model at 'nowhere/a/b'", ("--model", "nowhere/a/b", "--data", toy.heldout, *heads)),
        ("prepared with another tokenizer", ("--model", other, "--data", toy.heldout, *heads)),
        ("--trim_vocab", ("--model", other, "--data", toy.heldout, "--trim_vocab", toy.train)),
        ("has no text", (*model, "--trim_vocab", tmp_path / "blank.txt")),
        ("no file, folder or saved dataset 'gone.txt'", (*model, "--trim_vocab", "gone.txt")),
        ("single characters alone are", (*model, "--trim_vocab", toy.train, "--vocab_size", 10)),
        ("name with --task what it was", ("--model", task_model, "--data", tmp_path, *heads)),
        ("is a masked language model", (*model, *heads, "--task", "sst2")),
        ("has positions for 64 tokens", (*model, *heads, "--max_length", 65)),
        ("all are measured", (*model, *heads)),
        ("is no pruned model", (*model, *heads, "--output", tmp_path / "mine")),
        ("which is read", (*model, *heads, "--output", toy.teacher)),
    ):
        assert prune("--output", tmp_path / "out", *arguments) == 2, expected
        printed = capfd.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, printed.err
        assert expected in errors[0]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_a_tokenizer_without_an_unknown_token_is_refused(
    toy: Toy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy.teacher, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join("[known]" if line == "[UNK]" else line for line in lines) + "\n")
    out = tmp_path / "out"
    assert prune("--model", folder, "--data", toy.heldout, "--trim_vocab", toy.train, "--output", out) == 2
    assert "has no unk_token" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "nothing to prune"),
        (("--prune_heads", "1"), "--prune_heads 1: a share of the heads"),
        (("--layers", "2", "0"), "--layers 2 0: give layers in ascending order"),
        (("--prune_heads", "0.5", "--vocab_size", "9"), "--vocab_size 9: --trim_vocab TEXT has to say"),
        (("--prune_heads", "0.5", "--task", "sst3"), "there is no task 'sst3'"),
    ],
)
def test_flags_that_do_not_fit_each_other(
    flags: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(PruneConfig, ["--model", "m", "--output", "o", "--data", "d", *flags], "")
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err


def test_help_answers_without_torch() -> None:
    result = run(["python", "-X", "importtime", ROOT / "prune.py", "--help"])
    assert result.returncode == 0
    assert "--prune_heads" in result.stdout
    assert "| torch\n" not in result.stdout
