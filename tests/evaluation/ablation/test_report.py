"""The table against a calculation of its own, and what it says of cells that are not there."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.ablation.figures import BY_CHANCE, HELD_OUT, Spread, collect
from evaluation.ablation.plan import Plan
from evaluation.ablation.report import as_json, markdown
from evaluation.ablation.settings import Settings, understand
from evaluation.results import Cell, SplitUsed, TaskResult, TaskRun, write_json, write_result
from tests.conftest import Toy
from tests.evaluation.ablation.made import finish, plan_of

KEYS = [column.key for column in HELD_OUT]
CELLS: dict[str, dict[str, Any]] = {
    "triple_loss": {},
    "without_cosine": {"weight_cosine": 0},
    "without_mlm": {"weight_mlm": 0},
    "hot": {"temperature": 4},
}
Drawn = dict[tuple[str, int], dict[str, float]]


@pytest.fixture
def drawn() -> Drawn:
    """Figures of every cell and seed; without_cosine is always worse than the baseline, hot is not."""
    draw = np.random.default_rng(0)
    shift = {"triple_loss": 0.0, "without_cosine": 0.2, "without_mlm": 0.1, "hot": 0.0}
    return {
        (name, seed): {key: float(0.5 + shift[name] + 0.01 * draw.standard_normal()) for key in KEYS}
        for name in CELLS
        for seed in (0, 1, 2)
    }


def finished(toy: Toy, folder: Path, drawn: Drawn, **changes: Any) -> tuple[Plan, Settings]:
    """All of those that figures were drawn of."""
    plan = plan_of(toy, folder, cells=CELLS, seeds=[0, 1, 2], **changes)
    settings = understand(plan)
    for cell in plan.cells:
        if (cell.name, cell.seed) in drawn:
            finish(cell, settings, drawn[cell.name, cell.seed], toy.teacher)
    return plan, settings


def rows(section: str, title: str) -> dict[str, list[str]]:
    """The cells of a table, by the first of each row."""
    table = section.split(f"### {title}\n\n")[1].split("\n\n")[0].splitlines()
    return {parts[0]: parts[1:] for parts in ([part.strip() for part in row[2:-2].split(" | ")] for row in table)}


def add_task(plan: Plan, name: str, seed: int, task: str, scores: list[dict[str, float]], used: int = 10) -> None:
    cell = next(cell for cell in plan.cells if (cell.name, cell.seed) == (name, seed))
    (cell.folder / "finetune" / task).mkdir(parents=True)
    where = Cell(batch_size=32, learning_rate=3e-5, epochs=3)
    split = SplitUsed(files=("x",), examples=used, of=10)
    runs = tuple(TaskRun(cell=where, seed=n, scores={"validation": s}) for n, s in enumerate(scores))
    data = {"train": split, "validation": split}
    result = TaskResult(task=task, model="student", parameters=1, settings={}, data=data, runs=runs)
    write_result(result, cell.folder / "finetune" / task)
    write_json(plan.finetune, cell.folder / "finetune.json")


def test_figures_equal_a_calculation_of_their_own(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn)
    figures = collect(plan, settings)
    found = json.loads(as_json(plan, settings, figures, "command"))["cells"]
    shown = rows(markdown(plan, settings, figures, "command"), "Differences from triple_loss")
    cube = np.array([[[drawn[name, seed][key] for key in KEYS] for seed in (0, 1, 2)] for name in CELLS])
    pairs = cube - cube[0]
    for number, name in enumerate(CELLS):
        for place, key in enumerate(KEYS):
            assert list(found[name]["figures"][key].values()) == cube[number, :, place].tolist()
            one, difference = pairs[number, :, place], found[name]["differences"][key]
            assert difference["mean"] == pytest.approx(one.mean(), abs=1e-12)
            assert (difference["lowest"], difference["highest"]) == pytest.approx((one.min(), one.max()), abs=1e-12)
            assert difference["seeds"] == 3
            assert difference["stands_out"] == (abs(one.mean()) > np.ptp(one))
    loss = pairs[1, :, 0]
    assert shown["without_cosine"][0] == "3 of 3"
    assert shown["without_cosine"][1] == f"{loss.mean():+.3f} ({loss.min():+.3f} to {loss.max():+.3f}) *"
    accuracy = 100 * pairs[3, :, 1]
    assert shown["hot"][2] == f"{accuracy.mean():+.2f} ({accuracy.min():+.2f} to {accuracy.max():+.2f})"
    absolute = rows(markdown(plan, settings, figures, "command"), "Held-out text")
    assert absolute["hot"][:2] == ["temperature 4", "3 of 3"]
    values = cube[3, :, 0]
    assert absolute["hot"][2] == f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def test_pairs_are_of_the_same_seed(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    """A seed that one of the two lacks is no part of their difference, and is named as not finished."""
    del drawn["without_cosine", 0], drawn["triple_loss", 2], drawn["hot", 0], drawn["hot", 1]
    plan, settings = finished(toy, tmp_path, drawn)
    section = markdown(plan, settings, collect(plan, settings), "command")
    difference = drawn["without_cosine", 1][KEYS[0]] - drawn["triple_loss", 1][KEYS[0]]
    shown = rows(section, "Differences from triple_loss")
    assert shown["without_cosine"][:2] == ["1 of 3", f"{difference:+.3f}"]
    assert shown["hot"][:2] == ["0 of 3", "missing"]
    absolute = rows(section, "Held-out text")
    assert absolute["hot"][1:3] == ["1 of 3", f"{drawn['hot', 2][KEYS[0]]:.3f}"]
    assert "8 of 12 finished" in section
    assert "- hot, seed 0, 1: to do\n" in section
    assert "- without_cosine, seed 0: to do\n" in section


def test_failed_cells_are_named_with_their_log(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    del drawn["hot", 1]
    plan, settings = finished(toy, tmp_path, drawn)
    folder = tmp_path / "out/hot/seed-1"
    folder.mkdir(parents=True)
    failure = {"stage": "training", "reason": "exit code 3, DIVERGED", "log": str(folder / "output.txt"), "time": 0.0}
    (folder / "failed.json").write_text(json.dumps(failure))
    section = markdown(plan, settings, collect(plan, settings), "command")
    assert f"- hot, seed 1: failed (training: exit code 3, DIVERGED; see {folder}/output.txt)\n" in section


def test_the_published_points_stand_beside_their_cells_and_orders_are_compared(
    toy: Toy, tmp_path: Path, drawn: Drawn
) -> None:
    for seed in (0, 1, 2):
        drawn["without_mlm", seed]["eval_mlm_accuracy"] = 0.45
        drawn["without_cosine", seed]["eval_mlm_accuracy"] = 0.40
    plan, settings = finished(toy, tmp_path, drawn)
    section = markdown(plan, settings, collect(plan, settings), "command")
    table = rows(section, "Differences from triple_loss")
    assert table["cell"][-1] == "GLUE points, Sanh et al. 2019"
    assert [table[name][-1] for name in ("without_cosine", "without_mlm", "hot")] == ["-1.46", "-0.31", ""]
    assert "by GLUE: without_cosine, without_mlm.\nHere, by accuracy: without_cosine, without_mlm; the same" in section
    for cell in plan.cells:
        if cell.name == "without_mlm":
            worst = drawn["without_mlm", cell.seed] | {"eval_mlm_accuracy": 0.3}
            write_json({"settings": settings.heldout, "figures": worst}, cell.folder / "heldout.json")
    section = markdown(plan, settings, collect(plan, settings), "command")
    assert "without_mlm, without_cosine; another order" in section


def test_tasks_are_medians_of_their_seeds_and_means_of_all_tasks(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn, finetune={"task": ["rte", "stsb"], "data": "glue"})
    draw, expected = np.random.default_rng(1), {}
    for name, seed in drawn:
        rte, pearson, spearman = draw.uniform(0.3, 0.9, (3, 3))
        add_task(plan, name, seed, "rte", [{"accuracy": float(value)} for value in rte], used=5)
        both = zip(pearson, spearman, strict=True)
        add_task(plan, name, seed, "stsb", [{"pearson": float(p), "spearman": float(s)} for p, s in both])
        middle = [float(np.median(values)) for values in (rte, pearson, spearman)]
        expected[name, seed] = 100 * np.array([middle[0], middle[2], (middle[0] + (middle[1] + middle[2]) / 2) / 2])
    section = markdown(plan, settings, collect(plan, settings), "command")
    table = rows(section, "Fine-tuned")
    assert table["cell"] == ["seeds", "RTE", "STS-B", "mean of 2"]
    values = np.array([expected["hot", seed] for seed in (0, 1, 2)])
    for place, digits in enumerate((1, 1, 2)):
        one = values[:, place]
        assert table["hot"][1 + place] == f"{one.mean():.{digits}f} ({one.min():.{digits}f} to {one.max():.{digits}f})"
    means = np.array([expected["hot", seed][2] - expected["triple_loss", seed][2] for seed in (0, 1, 2)])
    shown = rows(section, "Differences from triple_loss")["hot"][-2]
    assert shown.removesuffix(" *") == f"{means.mean():+.2f} ({means.min():+.2f} to {means.max():+.2f})"
    assert "These are not the nine tasks of GLUE" in section
    assert "On a part of the examples: RTE." in section
    assert "12 of 12 finished" in section


def test_a_task_that_has_no_score_has_no_mean(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn, finetune={"task": ["cola"], "data": "glue"})
    add_task(plan, "hot", 0, "cola", [{"matthews": math.nan}])
    add_task(plan, "triple_loss", 0, "cola", [{"matthews": 0.5}])
    section = markdown(plan, settings, collect(plan, settings), "command")
    assert rows(section, "Fine-tuned")["hot"] == ["1 of 3", "undefined", "undefined"]
    assert rows(section, "Differences from triple_loss")["hot"][-2] == "undefined"
    assert "- hot, seed 1, 2: begun (to be fine-tuned)" in section


def test_results_of_other_flags_do_not_count(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn, finetune={"task": ["rte"], "data": "glue", "seeds": 3})
    add_task(plan, "hot", 0, "rte", [{"accuracy": 0.5}])
    assert "rte" in collect(plan, settings).values["hot"]
    other = plan_of(toy, tmp_path, cells=CELLS, seeds=[0, 1, 2], finetune={"task": ["rte"], "data": "x", "seeds": 5})
    assert "rte" not in collect(other, settings).values["hot"]


def test_figures_of_another_procedure_do_not_count(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    finished(toy, tmp_path, drawn)
    plan = plan_of(toy, tmp_path, cells=CELLS, seeds=[0, 1, 2], heldout={"data": str(toy.heldout), "sequences": 30})
    section = markdown(plan, understand(plan), collect(plan, understand(plan)), "command")
    assert rows(section, "Held-out text")["hot"][1:3] == ["0 of 3", "missing"]
    assert "- hot, seed 0, 1, 2: begun (to be scored)" in section


def test_students_scored_on_different_texts_are_not_compared(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn)
    path = plan.cells[-1].folder / "heldout.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": {**settings.heldout, "data": "other"}}))
    with pytest.raises(ValueError, match=r"hot/seed-2 was scored on another text"):
        collect(plan, settings)


def test_one_seed_tells_nothing_of_spread() -> None:
    assert Spread(mean=1.0, lowest=1.0, highest=1.0, seeds=1).stands_out is None


@pytest.mark.parametrize("seeds", BY_CHANCE)
def test_noise_stands_out_as_often_as_it_is_said(seeds: int) -> None:
    draws = np.random.default_rng(seeds).standard_normal((50_000, seeds))
    hits = [
        Spread(mean=statistics.fmean(d), lowest=min(d), highest=max(d), seeds=seeds).stands_out for d in draws.tolist()
    ]
    error = 4 * math.sqrt(BY_CHANCE[seeds] / len(hits)) + 0.0005  # four standard deviations, and the rounding
    assert statistics.fmean(map(bool, hits)) == pytest.approx(BY_CHANCE[seeds], abs=error)


def test_the_note_says_how_often(toy: Toy, tmp_path: Path, drawn: Drawn) -> None:
    plan, settings = finished(toy, tmp_path, drawn)
    section = markdown(plan, settings, collect(plan, settings), "command")
    assert re.search(r"noise alone in 29.5%, 8.1%, 2.2% and 0.5%\s+of cases with 2, 3, 4 and 5 seeds", section)
    assert "at temperature 1 over" in section
