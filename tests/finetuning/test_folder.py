"""OUTPUT/TASK after kills, damage and other commands: what is found again, and what is refused."""

import fcntl
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from evaluation.results import Cell, TaskRun
from evaluation.tasks import TASKS
from finetuning import folder as places
from finetuning.folder import RUN, check_settings, finish_exchange, finished, keep
from folders import locked

TASK = TASKS["sst2"]


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    return transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))


def model(value: float) -> transformers.PreTrainedModel:
    shape = transformers.BertConfig(
        vocab_size=6, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
    )
    made = transformers.BertForSequenceClassification(shape)
    torch.nn.init.constant_(made.classifier.bias, value)
    return made


def run(accuracy: float, seed: int = 0) -> TaskRun:
    cell = Cell(batch_size=8, learning_rate=1e-5, epochs=1)
    return TaskRun(cell=cell, seed=seed, scores={"validation": {"accuracy": accuracy}})


def kept(folder: Path) -> tuple[float, float]:
    """(a weight, the score) of the model that is there: they must be of one run."""
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model")
    record = finished(folder / "model", TASK)
    assert record is not None
    return loaded.classifier.bias[0].item(), record.scores["validation"]["accuracy"]


def test_only_a_better_model_takes_the_place(tmp_path: Path, tokenizer: object) -> None:
    for accuracy, expected in ((0.5, 0.5), (math.nan, 0.5), (0.25, 0.5), (0.75, 0.75)):
        keep(tmp_path, TASK, model(accuracy), tokenizer, run(accuracy))
        assert kept(tmp_path) == (expected, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("step", range(6))
def test_killed_at_any_step_a_whole_model_is_found(
    tmp_path: Path, tokenizer: object, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes a name or writes a record is one after which the process may be dead."""
    keep(tmp_path, TASK, model(0.25), tokenizer, run(0.25))
    left = [step]

    def dying(call):  # type: ignore[no-untyped-def]
        def wrapped(*arguments, **named):  # type: ignore[no-untyped-def]
            result = call(*arguments, **named)
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return result

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(places, "write_json", dying(places.write_json))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        try:
            keep(tmp_path, TASK, model(0.75), tokenizer, run(0.75))
        except Killed:
            pass
        else:
            assert step > 5, "the last step was not the last"
    finish_exchange(tmp_path)
    assert kept(tmp_path) in ((0.25, 0.25), (0.75, 0.75))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    keep(tmp_path, TASK, model(0.75), tokenizer, run(0.75))  # the run begins again
    assert kept(tmp_path) == (0.75, 0.75)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cell": 1, "scores": {}}', '{"scores": null}'])
def test_a_damaged_record_is_no_run_and_says_so(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished(tmp_path, TASK) is None
    assert not capsys.readouterr().out
    (tmp_path / RUN).write_text(content)
    assert finished(tmp_path, TASK) is None
    assert f"{tmp_path / RUN} is damaged" in capsys.readouterr().out


def test_settings_are_compared_in_both_directions(tmp_path: Path) -> None:
    check_settings(tmp_path, {"a": 1})
    (tmp_path / "settings.json").write_text(json.dumps({"a": 1, "temperature": 2.0}))
    check_settings(tmp_path, {"a": 1, "temperature": 2.0})
    with pytest.raises(ValueError, match=r"has runs with temperature 2.0, these would have it not set\. Give another"):
        check_settings(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match="has runs with b not set, these would have it 3"):
        check_settings(tmp_path, {"a": 1, "temperature": 2.0, "b": 3})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is not valid JSON"):
        check_settings(tmp_path, {"a": 1})


def test_one_process_writes_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "sst2"):
        second = locked(tmp_path / "sst2")
        with pytest.raises(ValueError, match="is being written by another process"):
            second.__enter__()
    with (tmp_path / "sst2/lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is free again
