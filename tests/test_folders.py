"""A command that is killed, or meets another one: what is there is whole, and the next one goes through."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from folders import Product, locked, staged
from tests.launch import environment

THINGS = Product("thing", lambda folder: (folder / "export.json").is_file())


def fill(folder: Path, text: str) -> None:
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    (folder / "onnx" / "model.onnx").write_text(text)
    (folder / "export.json").write_text(json.dumps({"version": 1, "variants": [], "golden": {}, "weights": text}))


def found(folder: Path) -> str:
    assert json.loads((folder / "export.json").read_text())["weights"] == (folder / "onnx" / "model.onnx").read_text()
    return (folder / "onnx" / "model.onnx").read_text()


def write(output: Path, text: str, source: Path) -> None:
    with staged(output, THINGS, [source]) as folder:
        fill(folder, text)


def test_replaces_an_export_and_leaves_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for text in ("one", "two"):
        write(tmp_path / "out", text, source)
        assert found(tmp_path / "out") == text
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "out", "one", tmp_path / "source")
    with contextlib.suppress(KeyboardInterrupt), staged(tmp_path / "out", THINGS, [tmp_path / "source"]) as folder:
        fill(folder, "half")
        raise KeyboardInterrupt
    assert found(tmp_path / "out") == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from folders import staged
from tests.test_folders import THINGS, fill
output, step = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def dying(call):
    def wrapped(*arguments, **named):
        global calls
        result = call(*arguments, **named)
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped
Path.rename, Path.unlink = dying(Path.rename), dying(Path.unlink)
with staged(output, THINGS, [output.parent / "source"]) as folder:
    fill(folder, "new")
    if step == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("step", range(4))
def test_killed_at_any_step(tmp_path: Path, step: int) -> None:
    """While it is written, and after each change of a name on the way to its place."""
    write(tmp_path / "out", "old", tmp_path / "source")
    pid = os.fork()  # a fresh interpreter would import torch each time
    if pid == 0:
        os.environ.update(environment())
        sys.argv = ["killed", str(tmp_path / "out"), str(step)]
        try:
            exec(KILLED, {"__name__": "killed"})
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    if (tmp_path / "out").exists():
        assert found(tmp_path / "out") in ("old", "new")
    write(tmp_path / "out", "newer", tmp_path / "source")
    assert found(tmp_path / "out") == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_once_and_a_folder_of_somebody_else(tmp_path: Path) -> None:
    with locked(tmp_path / "out.partial"), pytest.raises(ValueError, match="being written by another process"):
        write(tmp_path / "out", "one", tmp_path / "source")
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        write(tmp_path / "other", "one", tmp_path / "source")
    assert (tmp_path / "other.partial" / "letter.txt").read_text() == "mine"
