"""Cells that are run: finished ones are left alone, failed ones named, stopped and killed ones taken up again."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from data.batching import Corpus, fixed_batches
from evaluation.ablation import products
from evaluation.ablation.actions import run_cells, summary
from evaluation.ablation.commands import Commands
from evaluation.ablation.products import State, conflict, status
from evaluation.ablation.settings import look_at_files, understand
from evaluation.ablation.stages import work_on
from evaluation.heldout import evaluate
from model.hub import load_model
from tests.conftest import Toy
from tests.evaluation.ablation.made import finish, finish_training, plan_of, write
from tests.finetuning.toy_tasks import write_sst2
from tests.launch import run, start

FIGURES = {f"eval_{name}": 0.5 for name in ("mlm_loss", "mlm_accuracy", "agreement", "distillation", "cosine")}
TWO = {"triple_loss": {}, "without_cosine": {"weight_cosine": 0}}


@pytest.fixture
def commands() -> Iterator[Commands]:
    """In this process, whose signals are its own again afterwards."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield Commands()
    for number, handler in kept.items():
        signal.signal(number, handler)


def command(config: Path, *more: object) -> list[object]:
    return [sys.executable, "-m", "evaluation.ablation", "--config", config, *more]


def wait_until(happens: Callable[[], object], process: subprocess.Popen[str], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def files(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change; a lock is taken to look at a cell."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_finished_cells_are_not_touched_and_a_failed_one_stops_no_other(toy: Toy, tmp_path: Path) -> None:
    config = write(toy, tmp_path, launcher=["false"])
    plan = plan_of(toy, tmp_path, launcher=["false"])
    settings = look_at_files(plan, understand(plan))
    for number in (0, 1, 3):
        finish(plan.cells[number], settings, FIGURES, toy.teacher)
    before = files(tmp_path / "out")
    done = run(command(config))
    assert done.returncode == 1, done.stdout
    assert "6 students, 3 of them finished before" in done.stdout
    for name, seed in (("random", 0), ("without_cosine", 1), ("random", 1)):
        log = tmp_path / f"out/{name}/seed-{seed}/output.txt"
        assert f"{name}, seed {seed}: failed (training: exit code 1; see {log})\n" in done.stdout
        assert log.read_text().startswith("$ false /")
        assert f"--seed {seed} --output {log.parent}/run --resume" in log.read_text()
    assert "| random | student_init random | 0 of 2 | missing |" in done.stdout
    after = files(tmp_path / "out")
    assert {path: after[path] for path in before} == before


def test_nothing_is_left_to_do(toy: Toy, tmp_path: Path) -> None:
    config = write(toy, tmp_path, launcher=["false"], cells=TWO)
    plan = plan_of(toy, tmp_path, launcher=["false"], cells=TWO)
    settings = look_at_files(plan, understand(plan))
    for cell in plan.cells:
        finish(cell, settings, FIGURES, toy.teacher)
    done = run(command(config, "--json", tmp_path / "x.json", "--append", tmp_path / "x.md"))
    assert done.returncode == 0, done.stdout
    assert "4 of 4 finished" in (tmp_path / "x.md").read_text()
    assert json.loads((tmp_path / "x.json").read_text())["cells"]["triple_loss"]["states"]["1"] == "finished"
    listed = run(command(config, "--list", "--cell", 2))
    assert listed.stdout.rstrip().split("  ") == ["2", "triple_loss", "seed 1", "finished", str(plan.cells[2].folder)]


def test_other_flags_under_the_same_name_are_refused(toy: Toy, tmp_path: Path) -> None:
    """Neither reused nor overwritten, and no other cell is started."""
    plan = plan_of(toy, tmp_path, cells=TWO)
    finish(plan.cells[1], look_at_files(plan, understand(plan)), FIGURES, toy.teacher)
    before = files(tmp_path / "out")
    changed = write(toy, tmp_path, cells={**TWO, "without_cosine": {"weight_cosine": 0, "temperature": 4}})
    for mode in ([], ["--table"]):
        done = run(command(changed, *mode))
        assert done.returncode == 2
        assert done.stdout.startswith(
            f"error: {plan.cells[1].folder} was made with other flags: temperature was 2.0, is 4.0. Give the cell another"
        )
    assert files(tmp_path / "out") == before


def test_other_text_is_refused_where_it_is_looked_at(toy: Toy, tmp_path: Path) -> None:
    plan = plan_of(toy, tmp_path, cells=TWO)
    finish(plan.cells[0], look_at_files(plan, understand(plan)), FIGURES, toy.teacher)
    ds = tmp_path / "ds.json"
    ds.write_text(ds.read_text().replace('"lr": 0.001', '"lr": 0.002'))
    assert conflict(plan.cells[0], understand(plan)) == ""
    assert "was made with other files: ds_config was {" in conflict(
        plan.cells[0], look_at_files(plan, understand(plan))
    )


def test_a_run_of_somebody_else_is_not_adopted(toy: Toy, tmp_path: Path) -> None:
    plan = plan_of(toy, tmp_path, cells=TWO)
    (plan.cells[0].folder / "run").mkdir(parents=True)
    assert "holds a run that this command did not start" in conflict(plan.cells[0], understand(plan))


def test_a_cell_that_another_process_works_on_is_left_to_it(
    toy: Toy, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(products, "PATIENCE", 0.3)
    plan = plan_of(toy, tmp_path, cells=TWO, launcher=["false"])
    cell, settings = plan.cells[0], understand(plan)
    cell.folder.mkdir(parents=True)
    with (cell.folder / "lock").open("w") as lock:
        json.dump({"host": "n7", "pid": 4711, "job": "12"}, lock)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert str(status(cell, plan, settings)) == "running (process 4711 on n7, SLURM job 12)"
        outcomes = run_cells((cell,), plan, settings, commands)
        assert summary(outcomes, commands) == 2
        assert "triple_loss, seed 0: running (process 4711 on n7, SLURM job 12)" in capsys.readouterr().err
        assert not (cell.folder / "cell.json").exists()
    assert summary(run_cells((cell,), plan, settings, commands), commands) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running(toy: Toy, tmp_path: Path, number: signal.Signals) -> None:
    """Before train.py has begun there is nothing to save; the signal goes to what starts it."""
    config = write(toy, tmp_path, cells=TWO, launcher=["sh", "-c", "exec sleep 100"])
    process = start(command(config))
    wait_until(lambda: any(p.name() == "sleep" for p in psutil.Process(process.pid).children()), process)
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 75, output
        assert f"stopped ({number.name}); the same command goes on" in output
        assert "0 of 4 finished" in output
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def is_training(metrics: Path) -> bool:
    return metrics.exists() and "loss_mlm" in metrics.read_text()


def kill_when(happens: Callable[[], object], config: Path) -> None:
    """Start the ablation, and SIGKILL it with all that it has started when something has happened."""
    process = start(command(config), OMP_NUM_THREADS="1")
    wait_until(happens, process)
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for victim in victims:
        victim.kill()
    process.communicate(timeout=100)
    psutil.wait_procs(victims, timeout=30)


@pytest.mark.slow  # train.py five times; test_ablation.py of tests/slurm stops one with a signal
@pytest.mark.timeout(900)
def test_an_ablation_killed_in_the_middle_goes_on(toy: Toy, tmp_path: Path) -> None:
    more = {"max_updates": 15, "checkpoint_every": 5}
    train = json.loads(write(toy, tmp_path, cells=TWO).read_text())["train"] | more
    config, out = write(toy, tmp_path, cells=TWO, train=train), tmp_path / "out"
    first, second = out / "triple_loss/seed-0", out / "without_cosine/seed-0"
    kill_when(lambda: (second / "run/checkpoints/latest.json").exists(), config)
    assert not (second / "run/student").exists()
    finished = files(first)
    done = run(command(config, "--json", tmp_path / "x.json"), timeout=600, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout
    assert "4 students, 1 of them finished before" in done.stdout
    assert files(first) == finished
    attempts = {
        folder: [json.loads(line) for line in (folder / "run/attempts.jsonl").read_text().splitlines()]
        for folder in sorted(out.glob("*/seed-*"))
    }
    ends = {folder: [line["end"] for line in lines if "end" in line] for folder, lines in attempts.items()}
    assert ends.pop(second) == ["KILLED", "FINISHED"]
    assert list(ends.values()) == [["FINISHED"]] * 3
    assert [line["start_update"] for line in attempts[second] if "start_update" in line][1] >= 5
    check_figures(toy, out, tmp_path / "x.json")
    before = files(out)
    again = run(command(config))
    assert "4 of them finished before" in again.stdout
    assert files(out) == before


def check_figures(toy: Toy, out: Path, report: Path) -> None:
    """Of every student, taken once more; and that neither seeds nor cells are the same student."""
    cpu, corpus = torch.device("cpu"), Corpus.open(toy.heldout, max_length=40)
    masks = {"seed": 0, "mask_probability": 0.15, "mask_smoothing": 0.7}
    batches = fixed_batches(corpus, num_sequences=24, sequences_per_batch=7, rank=0, num_ranks=1, **masks)
    teacher, found = load_model(toy.teacher), json.loads(report.read_text())["cells"]
    losses = set()
    for name in TWO:
        for seed in (0, 1):
            student = load_model(out / name / f"seed-{seed}/run/student")
            own = evaluate(student, teacher, batches, temperature=1.0, device=cpu, reduce=lambda sums: sums)
            for key, by_seed in found[name]["figures"].items():
                assert by_seed[str(seed)] == pytest.approx(own[key], rel=1e-4), (name, seed, key)
            losses.add(own["eval_mlm_loss"])
    assert len(losses) == 4


@pytest.mark.slow
def test_a_cell_that_train_refuses_is_marked_with_its_reason(toy: Toy, tmp_path: Path) -> None:
    """What only the machine can tell: flags that are well-formed, and a device that cannot do it."""
    if torch.cuda.is_available():
        pytest.skip("Triton's kernels run here")
    config = write(toy, tmp_path, cells={"triple_loss": {}, "triton": {"kernels": "triton"}})
    done = run(command(config, "--cell", 1), OMP_NUM_THREADS="1")
    log = tmp_path / "out/triton/seed-0/output.txt"
    assert done.returncode == 1
    assert f"triton, seed 0: failed (training: exit code 2; see {log})\n" in done.stdout
    assert "error: --kernels triton" in log.read_text()
    assert f"failed (training: exit code 2; see {log})" in run(command(config, "--list", "--cell", 1)).stdout


@pytest.mark.slow
def test_students_are_scored_and_fine_tuned_once(
    toy: Toy, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with more of fine-tuning's own seeds only the new ones are run. The student here is its teacher."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    grid = {"seeds": 1, "batch_sizes": [32], "learning_rates": [1e-3], "epochs": [1], "keep_model": False}
    tuned = {"task": ["sst2"], "data": str(write_sst2(tmp_path / "glue")), **grid}
    plan = plan_of(toy, tmp_path, cells=TWO, finetune=tuned, launcher=["false"])
    cell, settings = plan.cells[1], look_at_files(plan, understand(plan))
    finish_training(cell, settings, toy.teacher)
    assert str(status(cell, plan, settings)) == "begun (to be scored)"
    assert work_on(cell, plan, settings, commands).state is State.FINISHED
    figures = products.read_heldout(cell, settings)
    assert figures is not None
    assert (figures["eval_agreement"], figures["eval_distillation"]) == (1.0, pytest.approx(0.0, abs=1e-6))
    assert len(products.read_tasks(cell, plan)["sst2"].runs) == 1
    before = files(cell.folder)
    more = plan_of(toy, tmp_path, cells=TWO, finetune=tuned | {"seeds": 2}, launcher=["false"])
    assert str(status(cell, more, settings)) == "begun (to be fine-tuned)"
    assert work_on(cell, more, settings, commands).state is State.FINISHED
    assert len(products.read_tasks(cell, more)["sst2"].runs) == 2
    after = files(cell.folder)
    runs = [path for path in before if path.endswith("run.json")]
    assert runs
    assert [after[path] for path in runs] == [before[path] for path in runs]


def test_a_student_that_was_moved_away_takes_its_figures_along(toy: Toy, tmp_path: Path, commands: Commands) -> None:
    plan = plan_of(toy, tmp_path, cells=TWO, launcher=["false"])
    cell, settings = plan.cells[0], look_at_files(plan, understand(plan))
    finish(cell, settings, FIGURES, toy.teacher)
    (cell.folder / "run").rename(tmp_path / "elsewhere")
    assert work_on(cell, plan, settings, commands).state is State.FAILED
    assert not (cell.folder / "heldout.json").exists()
