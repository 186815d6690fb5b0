"""What is found wrong before the first cell is started."""

import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.ablation.plan import read_plan
from evaluation.ablation.report import published_points
from evaluation.ablation.settings import HOW, differences, look_at_files, understand
from tests.conftest import Toy, prepare
from tests.evaluation.ablation.made import content, plan_of
from tests.finetuning.toy_tasks import write_sst2
from tests.launch import ROOT


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"temprature": 3}, "flags of x: Unrecognized options: --temprature, 3 (perhaps you meant --temperature"),
        ({"temperature": "two"}, "flags of x: Error parsing --temperature: could not convert string to float: 'two'"),
        ({"temperature": -1}, "--temperature -1.0: must be above 0"),
        ({"ds_config": "absent.json"}, "refuses the flags of x: no DeepSpeed configuration at --ds_config absent.json"),
        ({"temperature": 2}, "x and triple_loss have the same flags"),
        ({"log_every": 1}, "x and triple_loss have the same flags"),
    ],
)
def test_flags_that_train_refuses(toy: Toy, tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    plan = plan_of(toy, tmp_path, cells={"triple_loss": {}, "x": flags})
    with pytest.raises(ValueError, match=re.escape(message)):
        understand(plan)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"student_layers": "0,4"}, "cell x: student_layers 0,4: the teacher .* has layers 0 to 3, not 4"),
        ({"data": ["corpus/absent"]}, "cell x: no corpus at 'corpus/absent'"),
        ({"max_length": 65}, "cell x: max_length 65 exceeds the 64 usable positions"),
    ],
)
def test_files_that_do_not_fit(toy: Toy, tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    plan = plan_of(toy, tmp_path, cells={"triple_loss": {}, "x": flags})
    with pytest.raises(ValueError, match=message):
        look_at_files(plan, understand(plan))


def test_text_that_is_trained_on_is_not_held_out(toy: Toy, tmp_path: Path) -> None:
    plan = plan_of(toy, tmp_path, heldout={"data": str(toy.train)})
    with pytest.raises(ValueError, match="has the same contents as"):
        look_at_files(plan, understand(plan))


def test_a_corpus_of_other_words_is_refused(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three four five six seven eight nine ten\n")
    prepare("--input", tmp_path / "text.txt", "--train_vocab", 40, "--workers", 1, "--output", tmp_path / "other")
    plan = plan_of(toy, tmp_path, cells={"triple_loss": {}, "x": {"data": [str(tmp_path / "other")]}})
    with pytest.raises(ValueError, match=r"cell x: the teacher .* has another vocabulary than"):
        look_at_files(plan, understand(plan))


def test_a_launcher_that_is_not_there(toy: Toy, tmp_path: Path) -> None:
    plan = plan_of(toy, tmp_path, launcher=["torchrunn"])
    with pytest.raises(FileNotFoundError, match="the launcher 'torchrunn' is not on the PATH"):
        look_at_files(plan, understand(plan))


def test_fine_tuning_that_could_not_start(toy: Toy, tmp_path: Path) -> None:
    tasks = write_sst2(tmp_path / "glue")
    right = {"task": ["sst2"], "data": str(tasks)}
    plan = plan_of(toy, tmp_path, finetune=right | {"seds": 3})
    with pytest.raises(ValueError, match=r"finetune.py refuses the flags of finetune:[\s\S]*--seds"):
        look_at_files(plan, understand(plan))
    plan = plan_of(toy, tmp_path, finetune=right | {"task": ["sst2", "rte"]})
    with pytest.raises(FileNotFoundError, match="RTE"):
        look_at_files(plan, understand(plan))
    for data in (tasks, tmp_path):  # the folder of GLUE, and one with glue/ in it, as finetune.py takes them
        plan = plan_of(toy, tmp_path, finetune=right | {"data": str(data)})
        assert look_at_files(plan, understand(plan)).heldout["sequences"] == 24


def test_records_tell_what_decides_a_student_and_nothing_else(toy: Toy, tmp_path: Path) -> None:
    """A corpus or a DeepSpeed JSON is what is in it, wherever it lies; how often a run is logged changes nothing."""
    first = plan_of(toy, tmp_path)
    before = look_at_files(first, understand(first)).cells
    (tmp_path / "moved.json").write_bytes((tmp_path / "ds.json").read_bytes())
    train = content(toy, tmp_path)["train"] | {"ds_config": str(tmp_path / "moved.json"), "log_every": 3}
    second = plan_of(toy, tmp_path, train=train)
    assert {name: wanted.record for name, wanted in before.items()} == {
        name: wanted.record for name, wanted in look_at_files(second, understand(second)).cells.items()
    }
    (tmp_path / "ds.json").write_text((tmp_path / "ds.json").read_text().replace('"lr": 0.001', '"lr": 0.002'))
    after = look_at_files(first, understand(first)).cells
    assert before["random"].record["flags"] == after["random"].record["flags"]
    assert before["random"].record["files"] != after["random"].record["files"]


def test_flags_that_decide_nothing_are_flags(toy: Toy, tmp_path: Path) -> None:
    assert set(understand(plan_of(toy, tmp_path)).cells["random"].flags) >= HOW


def test_the_paper_s_cells_are_found_by_their_flags(tmp_path: Path) -> None:
    plan = read_plan(ROOT / "evaluation/ablation/paper.json")
    settings = understand(plan)
    assert published_points(plan, settings) == {
        "without_distillation": -2.96,
        "without_cosine": -1.46,
        "without_mlm": -0.31,
        "random_initialisation": -3.69,
    }
    base = settings.cells["triple_loss"].flags
    assert differences(settings.cells["distillation_alone"].flags, base) == {"weight_mlm": 0.0, "weight_cosine": 0.0}
    assert [(base[f"weight_{name}"]) for name in ("distillation", "mlm", "cosine")] == [5, 2, 1]
