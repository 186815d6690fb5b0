"""LiteRT's programs against transformers' own models: any length, padding, pruned heads, 8 bit."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exporting.litert_export import FILES, export_litert, lengths
from exporting.litert_runtime import INSTALL, LoadedProgram
from exporting.variant import MissingPackageError
from tests.exporting.programs import (
    POSITIONS,
    Small,
    batch_of,
    cosine,
    expected,
    largest_difference,
    make_classes,
    make_masked_lm,
    make_spans,
    request,
    small,
)
from tests.launch import ROOT

needs_litert = pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason=f"no LiteRT: {INSTALL}")

EXPORT = """
import sys, torch
from exporting.litert_export import export_litert
for file in sys.argv[1:]:
    asked = torch.load(file, weights_only=False)
    assert [variant.precision for variant in export_litert(asked)] == ["fp32", "int8"]
"""
"""In a process of its own: the converter's threads would not outlive the forks of other tests."""


@dataclass(frozen=True, kw_only=True)
class Exported(Small):
    """With its programs."""

    folder: Path

    def run(self, precision: str, threads: int = 0) -> LoadedProgram:
        return LoadedProgram(self.folder / FILES[precision], threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    models: dict[str, nn.Module] = {
        "masked_lm": make_masked_lm(num_layers=2),
        "spans": make_spans(),
        "classes": make_classes(),
    }
    found = {}
    for name, model in models.items():
        folder, given = tmp_path_factory.mktemp(name), small(model)
        torch.save(request(given, folder, "fp32", "fp16", "int8_static", "int8"), folder / "request.pt")
        found[name] = Exported(model=model, plain=given.plain, folder=folder)
    files = [str(each.folder / "request.pt") for each in found.values()]
    command = [sys.executable, "-c", EXPORT, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return found


@needs_litert
@pytest.mark.slow
@pytest.mark.parametrize("name", ["masked_lm", "spans", "classes"])
def test_programs_equal_transformers(name: str, exported: dict[str, Exported]) -> None:
    one = exported[name]
    assert one.plain.shape.num_heads == (3, 1)
    assert largest_difference(one, one.run("fp32")) < 2e-5
    batch = batch_of(one, 40, 9)
    for found, right in zip(one.run("int8", threads=2)(batch), expected(one, batch), strict=True):
        assert cosine(found[0], right[0]) > 0.99
        assert (found[0].argmax(-1) == right[0].argmax(-1)).mean() > 0.9


@needs_litert
@pytest.mark.slow
def test_the_tied_embedding_is_in_the_file_once(exported: dict[str, Exported]) -> None:
    """Though two signatures read it, and the vocabulary projection."""
    one = exported["masked_lm"]
    fp32, int8 = ((one.folder / file).read_bytes() for file in FILES.values())
    weights = one.plain.encoder.word.weight.detach().numpy()[200:204]
    assert fp32.count(weights.tobytes()) == 1
    rounded = np.round(weights / (np.abs(weights).max(axis=1, keepdims=True) / 127)).astype(np.int8)
    assert int8.count(rounded.tobytes()) == 1


@needs_litert
@pytest.mark.slow
def test_what_cannot_be_run_is_refused_in_a_sentence(exported: dict[str, Exported], tmp_path: Path) -> None:
    one = exported["masked_lm"]
    run = one.run("fp32")
    for length in (POSITIONS + 1, 0):
        batch = {name: np.ones((1, length), dtype=np.int64) for name in one.plain.input_names}
        with pytest.raises(ValueError, match=f"model.tflite takes 1 to {POSITIONS} tokens, not {length}"):
            run(batch)
    (tmp_path / "torn.tflite").write_bytes((one.folder / FILES["fp32"]).read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"torn.tflite: not a program that LiteRT can load"):
        LoadedProgram(tmp_path / "torn.tflite")
    with pytest.raises(FileNotFoundError, match="no program at"):
        LoadedProgram(tmp_path / "none.tflite")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(
        MissingPackageError, match=r"^LiteRT cannot be loaded \(.*litert_torch.*\): pip install --no-deps"
    ):
        export_litert(request(small(make_masked_lm(num_layers=1)), tmp_path, "fp32"))
    assert export_litert(request(small(make_masked_lm(num_layers=1)), tmp_path, "fp16")) == []


@pytest.mark.parametrize(
    ("longest", "right"), [(512, [32, 64, 128, 256, 512]), (128, [32, 64, 128]), (130, [32, 64, 128, 130]), (20, [20])]
)
def test_lengths(longest: int, right: list[int]) -> None:
    assert lengths(longest) == right
