"""What demo.build and demo.serve take, write and refuse."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.build import main
from demo.config import BuildConfig, ServeConfig
from demo.node import HERE
from demo.serve import Handler, server
from demo.serve import main as serve_main
from tests.demo.conftest import Serve
from tests.launch import ROOT


def refused(capsys: pytest.CaptureFixture[str], **flags: str) -> str:
    assert main(BuildConfig(**flags)) == 2  # type: ignore[arg-type]
    [line] = capsys.readouterr().err.splitlines()
    return line


def change(folder: Path, **values: object) -> None:
    golden = json.loads((folder / "golden.json").read_bytes())
    (folder / "golden.json").write_text(json.dumps(golden | values))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no such folder. Write one: python export.py"),
        (lambda folder: (folder / "golden.json").unlink(), "no golden.json in it. Export the model again"),
        (lambda folder: (folder / "onnx/model_int8.onnx").unlink(), "no onnx/model_int8.onnx in it.*--variants int8"),
        (lambda folder: (folder / "onnx/model_int8.onnx.data").touch(), "the weights of onnx/model_int8.onnx are in"),
        (lambda folder: (folder / "golden.json").write_text("{"), "golden.json is not an export's"),
        (
            lambda folder: change(folder, kind="mlm", task="mlm"),
            r"its task is mlm \(mlm\), and the page answers questions",
        ),
        (lambda folder: change(folder, variants={}), "golden.json has no record of onnx/model_int8.onnx"),
    ],
)
def test_what_is_no_export_for_the_page_is_refused(
    damage: Callable[[Path], object], words: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(exported, folder)
    damage(folder)
    for flag in ("student", "teacher"):
        flags = {"student": str(exported), flag: str(folder), "output": str(tmp_path / "site")}
        assert re.search(f"error: --{flag} {folder}: .*{words}", refused(capsys, **flags))
    assert not (tmp_path / "site").exists()


def test_a_folder_that_is_no_site_stays(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    said = refused(capsys, student=str(exported), output=str(tmp_path))
    assert f"--output {tmp_path} is there and is no page built here" in said
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_node_is_asked_for_by_name(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(capsys, student=str(exported), output=str(tmp_path / "site"))
    assert "no node here: the page is built with Node 18 or newer and its npm" in said
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v16.1.0\n")
    node.chmod(0o755)
    (tmp_path / "npm").symlink_to(node)
    assert "node v16.1.0 is too old" in refused(capsys, student=str(exported), output=str(tmp_path / "site"))


def test_texts_that_the_page_would_read_otherwise_are_refused(
    site: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(exported, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refused(capsys, student=str(folder), output=str(tmp_path / "site"))
    assert re.search(r"cuts \d+ of 50 recorded texts into other tokens than Python", said)
    tokenizer["model"]["type"] = "Unigram"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refused(capsys, student=str(folder), output=str(tmp_path / "site"))
    assert "the page reads BERT's WordPiece and RoBERTa's byte-level BPE, not Unigram" in said


def test_the_site_knows_its_files(site: Path) -> None:
    content = json.loads((site / "site.json").read_bytes())
    files = {file["path"]: file for file in content["files"]}
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert there - files.keys() == {"site.json", "service-worker.js"}
    for path, file in files.items():
        assert file["sha256"] == hashlib.sha256((site / path).read_bytes()).hexdigest(), path
        assert file["bytes"] == (site / path).stat().st_size
    optional = {path for path, file in files.items() if file["optional"]}
    assert all("asyncify" in path or path.startswith("models/teacher-") for path in optional)
    # Nothing but the site itself is asked for: no address of another server in what we wrote.
    for path in (*site.glob("app-*/page.*"), site / "index.html", site / "service-worker.js"):
        assert not re.search(r"https?://(?!www\.w3\.org)\w+\.", path.read_text(encoding="utf-8")), path
    licences = next(site.glob("app-*/licences.txt")).read_text(encoding="utf-8")
    assert {"onnxruntime-web", "@huggingface/tokenizers"} <= set(re.findall(r"^(\S+) [\d.]+, ", licences, re.MULTILINE))


def test_packages_are_pinned_and_named_without_a_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_bytes())
    package = json.loads((HERE / "package.json").read_bytes())
    for name, version in (package["dependencies"] | package["devDependencies"]).items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, name
        assert not name or entry["integrity"].startswith("sha512-")


@pytest.mark.parametrize("command", ["build", "serve"])
def test_help_answers_without_anything_heavy(command: str) -> None:
    code = "import runpy, sys; sys.argv = ['x', '--help']\n"
    code += f"try: runpy.run_module('demo.{command}', run_name='__main__')\n"
    code += "finally: assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert answer.returncode == 0, answer.stderr
    assert f"python -m demo.{command}" in answer.stdout


def test_what_cannot_be_served_is_said(
    site: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_main(ServeConfig(site=str(tmp_path))) == 2
    assert f"--site {tmp_path}: no site.json in it. Build one" in capsys.readouterr().err
    taken = server(site, 0, Handler)
    assert serve_main(ServeConfig(site=str(site), port=taken.server_address[1])) == 2
    assert f"--port {taken.server_address[1]}" in capsys.readouterr().err
    taken.server_close()
