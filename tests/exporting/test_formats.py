"""The whole command: every format beside the Hugging Face folder, measured, refused where it loses too much, checked."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import export
from exporting.config import ExportConfig
from exporting.hugging_face import runner
from exporting.passages import SENTENCES
from exporting.source import load_source
from exporting.texts import encode
from tests.exporting.small import write_task
from tests.exporting.test_export import checker, read
from tests.launch import run


def write_sst2(folder: Path, task_folder: Path) -> Path:
    """Pairs of sentences that the model can hardly decide on, with the labels that it gives them: it scores 100%."""
    source = load_source(str(task_folder))
    predict = runner(source.model)
    texts = [f"{one} {two}" for one in SENTENCES[:30] for two in SENTENCES[30:]]
    logits = np.concatenate([predict(encode(source, (text,)))[0] for text in texts])
    closest = np.argsort(np.abs(logits[:, 0] - logits[:, 1]))[:60]
    rows = ["sentence\tlabel", *(f"{texts[row]}\t{logits[row].argmax()}" for row in closest)]
    (folder / "SST-2").mkdir(parents=True)
    for name in ("train", "dev"):
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def sst2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    write_task(folder, "sst2")
    write_sst2(folder / "glue", folder / "sst2")
    return folder


@pytest.fixture(scope="module")
def exported(sst2: Path) -> Path:
    """With ONNX's fp32 and int8, the latter of which changes its mind on texts like these."""
    given = ExportConfig(
        input=str(sst2 / "sst2"),
        output=str(sst2 / "out"),
        formats=("onnx",),
        variants=("fp32", "int8"),
        data=str(sst2 / "glue"),
        teacher=str(sst2 / "sst2" / "model"),
    )
    assert export.main(given) == 3
    return sst2 / "out"


def test_a_variant_that_loses_too_much_is_named_and_not_kept(exported: Path) -> None:
    content = read(exported, "export.json")
    assert [variant["file"] for variant in content["variants"]] == ["model.safetensors", "onnx/model.onnx"]
    assert [variant["score"] for variant in content["variants"]] == [1.0, 1.0]
    (refused,) = content["refused"]
    assert refused["file"] == "onnx/model_int8.onnx"
    assert refused["drop"] > 1.0
    assert refused["drop"] == pytest.approx(100 * (1.0 - refused["score"]))
    assert refused["reason"] in (exported / "README.md").read_text()
    assert refused["reason"] in (exported / "EXPORT.md").read_text()
    assert [path.name for path in (exported / "onnx").iterdir()] == ["model.onnx"]
    assert refused["file"] not in read(exported, "golden.json")["variants"]
    assert content["teacher"]["latency_ms"] > 0
    assert all(variant["latency_ms"] > 0 and variant["speedup"] > 0 for variant in content["variants"])


def test_golden_inputs_are_of_the_data(exported: Path) -> None:
    golden = read(exported, "golden.json")
    assert golden["texts_from"] == f"SST-2, validation, of {exported.parent / 'glue'}"
    texts = {row.split("\t")[0] for row in (exported.parent / "glue/SST-2/dev.tsv").read_text().splitlines()}
    assert sum(given["texts"][0] in texts for given in golden["inputs"]) == 47


def test_check_knows_which_variant_was_changed(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    check = checker(folder)
    assert check.main([str(folder)]) == 0
    assert capsys.readouterr().out.count("OK") == 2
    model = onnx.load(folder / "onnx/model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = onnx.numpy_helper.to_array(largest) * np.float32(1.01)
    largest.CopyFrom(onnx.numpy_helper.from_array(changed, largest.name))
    onnx.save(model, folder / "onnx/model.onnx")
    assert check.main([str(folder)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("model.safetensors (PyTorch): OK")
    assert second.startswith("onnx/model.onnx (onnx fp32): computes something else")


def test_bad_input_of_formats(sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, why in (({"opset": 7}, "--opset 7"), ({"teacher": str(tmp_path)}, "no config.json")):
        given = ExportConfig(input=str(sst2 / "sst2"), output=str(tmp_path / "out"), formats=("onnx",), **more)  # type: ignore[arg-type]
        assert export.main(given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything(sst2: Path) -> None:
    """As it is typed: all formats and variants, and their check in a process of its own."""
    files = {
        "onnx": [f"onnx/{name}.onnx" for name in ("model", "model_fp16", "model_int8", "model_int8_static")],
        "executorch": [f"executorch/{name}.pte" for name in ("model", "model_int8")],
        "litert": [f"litert/{name}.tflite" for name in ("model", "model_int8")],
    }
    packages = {"executorch": "executorch", "litert": "litert_torch"}  # optional
    there = [name for name in files if name not in packages or importlib.util.find_spec(packages[name])]
    command = [
        sys.executable,
        "export.py",
        "--input",
        sst2 / "sst2",
        "--output",
        sst2 / "all",
        "--formats",
        "hf",
        *there,
    ]
    process = run(command, timeout=600)
    assert process.returncode == 0, process.stdout[-3000:]
    found = [variant["file"] for variant in json.loads((sst2 / "all/export.json").read_text())["variants"]]
    assert found == ["model.safetensors", *(file for name in there for file in files[name])]
    checked = run([sys.executable, "-I", sst2 / "all/check.py"])
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count(": OK, ") == len(found)


def test_no_training_examples_to_calibrate_on(sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(sst2 / "glue", tmp_path / "glue")
    (tmp_path / "glue/SST-2/train.tsv").unlink()
    flags = {"input": str(sst2 / "sst2"), "output": str(tmp_path / "out"), "formats": ("onnx",)}
    assert export.main(ExportConfig(**flags, data=str(tmp_path / "glue"))) == 2  # type: ignore[arg-type]
    assert "give --calibration TEXT" in capsys.readouterr().err
