"""docs/reference/ is what the code says today."""

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import training.report
from command_line import parse
from docs.generator.__main__ import FOLDER, pages
from docs.generator.commands import COMMANDS, Command
from docs.generator.flags import OF_THE_LAUNCHER, groups, read
from docs.generator.run_pages import FIELDS
from tests.launch import ROOT
from training.report import Report

WITHOUT_A_PAGE = {
    "evaluation/ablation/score.py": "a process that evaluation.ablation starts",
    "launcher/rehearsal.py": "takes the flags of train.py",
    "launcher/train_flags.py": "takes the flags of train.py",
}


def test_the_pages_are_those_that_would_be_written() -> None:
    written = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    wrong = sorted(name for name in written.keys() | there.keys() if written.get(name) != there.get(name))
    assert not wrong, f"docs/reference is not what the code says: {', '.join(wrong)}. Run: python -m docs.generator"


def test_every_command_has_a_row() -> None:
    """Of the files outside bench/ and tests/ that hand flags to the parser."""
    found = set()
    packages = {path.parent for path in ROOT.glob("[!.]*/__init__.py")} - {ROOT / name for name in ("bench", "tests")}
    for path in (*ROOT.glob("*.py"), *(path for package in sorted(packages) for path in package.rglob("*.py"))):
        text = path.read_text(encoding="utf-8")
        calls = ast.walk(ast.parse(text)) if "command_line" in text else ()
        if any(isinstance(node, ast.Call) and ast.unparse(node.func) == "parse" for node in calls):
            found.add(path.relative_to(ROOT).as_posix())
    rows = {command.source for command in COMMANDS}
    assert found == rows | WITHOUT_A_PAGE.keys(), "give it a row in docs/generator/commands.py, or a reason above"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.page)
def test_the_parser_offers_the_flags_of_the_page(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")  # one column of flags
    config = read(ROOT / command.source).config
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        parse(config, ["--help"], "")
    offered = set(re.findall(r"^[│| ]{1,3}(--[a-z_0-9]+)", told.getvalue(), re.MULTILINE))
    listed = {flag.name for group in groups(config) for flag in group.flags if flag.name.startswith("--")}
    assert offered - {f"--{OF_THE_LAUNCHER}"} == listed
    assert all(flag.help for group in groups(config) for flag in group.flags)


def test_metrics_has_every_field_that_a_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.report, "gather_over_ranks", lambda row: row[None])
    weights = {"distillation": 5.0, "mlm": 2.0, "cosine": 1.0}
    report = Report(weights, device=torch.device("cpu"), num_ranks=1, peak_flops=1.0)
    fields = set(report.line({}, {}, 0.0))
    fields |= set(keys(ROOT / "trainer.py", "log_metrics")) | set(
        keys(ROOT / "training/engine.py", "optimizer_figures")
    )
    scores = {name for name in keys(ROOT / "evaluation/heldout.py", "evaluate") if name.startswith("eval_")}
    alone = {"eval_mlm_loss", "eval_mlm_accuracy", "eval_perplexity"}  # of a model without a teacher
    fields |= scores | {name.replace("eval_", "eval_teacher_") for name in alone}
    fields |= {name for name in keys(ROOT / "inputs.py", "score_teacher") if name.startswith("eval_")}
    assert fields | {"epoch_NAME"} == FIELDS.keys()


def keys(path: Path, function: str) -> Iterator[str]:
    """String keys of the dictionaries that a function makes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    for node in ast.walk(found):
        names: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            names = list(node.keys)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names = [node.slice]
        yield from (name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str))
