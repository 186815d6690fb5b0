"""The file of an ablation: what is refused, and how its cells are numbered."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.ablation.plan import arguments, read_plan
from evaluation.ablation.settings import understand
from tests.conftest import Toy
from tests.evaluation.ablation.made import content, plan_of, write
from tests.launch import ROOT, run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "key 'seed' is not known: did you mean 'seeds'?"),
        ({"baseline": None}, "missing 'baseline'"),
        ({"baseline": "tripel_loss"}, "baseline is 'tripel_loss', expected one of the cells: triple_loss, "),
        ({"seeds": [0, 0]}, "the same seed gives the same student"),
        ({"seeds": [0.5]}, "expected a list of whole numbers"),
        ({"seeds": []}, "expected a list of whole numbers"),
        ({"output": ""}, "expected a folder"),
        ({"cells": {}}, "expected an object such as"),
        ({"cells": {"triple_loss": {}, "../b": {}}}, "'../b' has no name for a folder"),
        ({"cells": {"triple_loss": {}, "b/c": {}}}, "'b/c' has no name for a folder"),
        ({"cells": {"triple_loss": {"seed": 3}}}, "cells.triple_loss has 'seed', but the file's seeds are what"),
        ({"cells": {"triple_loss": {"teacher": "x"}}}, "but all students are compared with one teacher"),
        ({"cells": {"triple_loss": {"--temperature": 3}}}, "by its name without dashes"),
        ({"cells": {"triple_loss": {"temperature": None}}}, "cells.triple_loss.temperature is null, expected text, a"),
        ({"cells": {"triple_loss": {"max-length": 3, "max_length": 4}}}, "give each flag once"),
        ({"launcher": "torchrun"}, "expected a list such as"),
        ({"heldout": {"sequence": 3}}, "did you mean 'sequences'?"),
        ({"heldout": {"data": "x", "sequences": 0}}, "at least 1 is needed"),
        ({"heldout": None}, "no held-out text to score the students on"),
        ({"finetune": {"task": ["rte", "sst3"]}}, "there is no task 'sst3'"),
        ({"finetune": {"data": "glue"}}, "expected a list of tasks"),
        ({"finetune": {"task": "rte", "model": "x"}}, "it is each cell's student. Leave it out"),
    ],
)
def test_a_wrong_file_is_refused(toy: Toy, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(toy, tmp_path, **changes)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{re.escape(message)}"):
        read_plan(path)


def test_a_cell_named_twice_is_refused(toy: Toy, tmp_path: Path) -> None:
    """JSON itself would keep the last one and say nothing."""
    path = write(toy, tmp_path)
    path.write_text(path.read_text().replace('"cells": {', '"cells": {"random": {"temperature": 3}, '))
    with pytest.raises(ValueError, match="'random' occurs twice"):
        read_plan(path)


def test_what_is_no_json_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"output": "runs/x",\n "seeds": [0 1]}')
    with pytest.raises(ValueError, match=r"x.json is not valid JSON: .*line 2 column"):
        read_plan(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds list, expected a JSON object"):
        read_plan(path)


def test_all_cells_of_a_seed_come_before_the_next_seed(toy: Toy, tmp_path: Path) -> None:
    """So that a table of all cells is there as early as can be."""
    plan = plan_of(toy, tmp_path, seeds=[5, 2])
    assert [(cell.number, cell.name, cell.seed) for cell in plan.cells] == [
        (0, "triple_loss", 5),
        (1, "without_cosine", 5),
        (2, "random", 5),
        (3, "triple_loss", 2),
        (4, "without_cosine", 2),
        (5, "random", 2),
    ]
    assert plan.numbered(4).folder == tmp_path / "out/without_cosine/seed-2"
    with pytest.raises(ValueError, match=r"--cell 6: .* 3 cells times 2 seeds, numbered 0 to 5"):
        plan.numbered(6)


def test_a_cell_has_the_common_flags_and_its_own_on_top(toy: Toy, tmp_path: Path) -> None:
    train = content(toy, tmp_path)["train"] | {"temperature": 3}
    plan = plan_of(toy, tmp_path, train=train, cells={"triple_loss": {}, "hot": {"temperature": 8}})
    assert [cell.flags["temperature"] for cell in plan.cells[:2]] == [3, 8]
    assert plan.cells[1].flags["max_updates"] == 6


def test_flags_become_a_command_line() -> None:
    flags = {"data": ["a", "b:2"], "resume": True, "check_teacher": False, "temperature": 2.5, "max_updates": 3}
    assert arguments(flags) == [
        *("--data", "a", "b:2", "--resume", "--no_check_teacher", "--temperature", "2.5", "--max_updates", "3")
    ]


def test_the_launcher_is_the_file_s_unless_one_is_given(toy: Toy, tmp_path: Path) -> None:
    path = write(toy, tmp_path, launcher=["deepspeed", "--num_gpus", "2"])
    assert read_plan(path).launcher == ("deepspeed", "--num_gpus", "2")
    assert read_plan(path, "srun --wait=60 'a b'").launcher == ("srun", "--wait=60", "a b")


def test_the_command_counts_and_refuses_in_one_line(toy: Toy, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation.ablation", "--config"]
    assert run([*command, write(toy, tmp_path), "--count"]).stdout == "6\n"
    absent = run([*command, tmp_path / "absent.json"])
    assert (absent.returncode, absent.stdout.count("\n")) == (2, 1)
    assert absent.stdout.startswith("error: no ablation at --config")


@pytest.mark.parametrize("name", ["paper", "demo"])
def test_shipped_ablations_are_well_formed(name: str) -> None:
    path = ROOT / f"evaluation/ablation/{name}.json"
    plan = read_plan(path)
    assert plan.names[0] == plan.baseline
    assert plan.num_cells == len(json.loads(path.read_text())["cells"]) * len(plan.seeds)
    assert understand(plan).cells.keys() == set(plan.names)
