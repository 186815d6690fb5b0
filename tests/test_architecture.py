"""The house rules: who may import whom, no import cycles, functions that fit a screen."""

import ast
from pathlib import Path

import pytest

from tests.launch import ROOT

PACKAGES = (
    "data",
    "model",
    "training",
    "evaluation",
    "finetuning",
    "exporting",
    "pruning",
    "demo",
    "docs",
    "launcher",
    "bench",
)
MAY_IMPORT = {
    "data": {"data"},
    "model": {"model"},
    "training": {"training"},
    "evaluation": {"evaluation", "data", "model"},
    "finetuning": {"finetuning", "evaluation", "data", "model"},
    "exporting": {"exporting", "finetuning", "evaluation", "data", "model"},
    "pruning": {"pruning", "exporting", "finetuning", "evaluation", "data", "model"},
    "demo": {"demo"},
    "docs": {"docs", "training"},
    "launcher": {"launcher", "data", "model", "training"},
}
SCRIPTS = (
    "train",
    "trainer",
    "finetune",
    "prune",
    "run_state",
    "incidents",
    "export",
    "student_folder",
    "inputs",
    "planning",
    "plan_report",
    "command_line",
    "folders",
)
FILES = [*(ROOT / f"{name}.py" for name in SCRIPTS), *(f for p in PACKAGES for f in sorted((ROOT / p).rglob("*.py")))]


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in (*PACKAGES, *SCRIPTS)}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_who_they_may(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imported_modules(path):
            assert name.split(".")[0] in MAY_IMPORT[package] | {"command_line", "folders"}, (
                f"{path.relative_to(ROOT)} imports {name}"
            )


def test_no_import_cycles() -> None:
    graph = {module_name(path): imported_modules(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_configurations_import_nothing_heavy() -> None:
    for path in (ROOT / "model/config.py", ROOT / "data/config.py", ROOT / "training/config.py"):
        heavy = {"torch", "numpy", "deepspeed", "transformers", "tokenizers"}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        top += [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not {name.split(".")[0] for name in top} & heavy, path


def test_functions_fit_a_screen() -> None:
    lengths = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"
                lengths.append(length)
    lengths.sort()
    assert lengths[int(0.9 * len(lengths))] <= 40


def test_no_loader_that_runs_code() -> None:
    """Everything of others is read with weights_only or safetensors."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
