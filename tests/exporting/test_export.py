"""export.py on small models: what it writes, who opens it, what check.py says of it, and what is refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from safetensors.torch import load_file, save_file

import export
from exporting import command
from exporting.config import ExportConfig
from exporting.golden import judge, run_golden
from exporting.hugging_face import load_hugging_face
from tests.exporting.small import MAX_LENGTH, TASK_LENGTH, write_student, write_task
from tests.launch import run

NAMES = ("student", "sst2", "stsb", "squad")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export of each kind of head."""
    folder = tmp_path_factory.mktemp("exports")
    write_student(folder / "made" / "student")
    for task, family in (("sst2", "distilbert"), ("stsb", "bert"), ("squad", "distilbert")):
        write_task(folder / "made", task, family)
    for name in NAMES:
        given = ExportConfig(input=str(folder / "made" / name), output=str(folder / name), formats=("hf",))
        assert export.main(given) == 0
    return folder


def read(export_folder: Path, name: str) -> dict:
    return json.loads((export_folder / name).read_text())


def checker(export_folder: Path) -> ModuleType:
    """The check.py that lies in an export, as a module of its own."""
    spec = importlib.util.spec_from_file_location("check_of_an_export", export_folder / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_is_there(exports: Path) -> None:
    for name in NAMES:
        written = {path.name for path in (exports / name).iterdir()}
        assert {"README.md", "EXPORT.md", "export.json", "golden.json", "check.py"} <= written
        assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"} <= written
        assert ("modules.json" in written) == (name == "student")
        assert "lock" not in written
        assert not (exports / f"{name}.partial").exists()
        (variant,) = read(exports / name, "export.json")["variants"]
        assert variant["bytes"] == (exports / name / "model.safetensors").stat().st_size
        assert variant["golden"]["max_difference"] < 1e-5
        assert variant["golden"]["same_answers"] == 50


OPENING = """
import json, runpy, sys
import numpy, torch, transformers
from sentence_transformers import SentenceTransformer
import importlib.util
assert importlib.util.find_spec("exporting") is None, "distillery is on the path"
folder, found = sys.argv[1], {}
heads = {"student": transformers.AutoModelForMaskedLM, "sst2": transformers.AutoModelForSequenceClassification,
         "stsb": transformers.AutoModelForSequenceClassification, "squad": transformers.AutoModelForQuestionAnswering}
for name, head in heads.items():
    model = head.from_pretrained(f"{folder}/{name}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/{name}")
    largest = 0.0
    for given in json.load(open(f"{folder}/{name}/golden.json"))["inputs"]:
        cut = "only_second" if name == "squad" else True
        encoded = tokenizer(*given["texts"], truncation=cut, return_tensors="pt")
        assert encoded["input_ids"][0].tolist() == given["input_ids"], given["texts"]
        with torch.inference_mode():
            output, said = model(**encoded), given["outputs"]
        if name == "student":
            pairs = [(output.logits[0, said["position"]][said["token_ids"]], said["logits"])]
        elif name == "squad":
            pairs = [(output.start_logits[0], said["start_logits"]), (output.end_logits[0], said["end_logits"])]
        else:
            pairs = [(output.logits[0], said["logits"])]
        largest = max([largest, *(float((one - torch.tensor(two)).abs().max()) for one, two in pairs)])
    found[name] = largest
filled = transformers.pipeline("fill-mask", model=f"{folder}/student")
found["filled"] = filled(json.load(open(f"{folder}/student/golden.json"))["inputs"][0]["texts"][0])[0]["token_str"]
classify = transformers.pipeline("text-classification", model=f"{folder}/sst2")
found["label"] = classify(json.load(open(f"{folder}/sst2/golden.json"))["inputs"][0]["texts"][0])[0]["label"]
pair = json.load(open(f"{folder}/stsb/golden.json"))["inputs"][0]["texts"]
score = transformers.pipeline("text-classification", model=f"{folder}/stsb")
found["score"] = score({"text": pair[0], "text_pair": pair[1]})["score"]
texts = ["The lighthouse is white.", "A cat"]
vectors = SentenceTransformer(f"{folder}/student", device="cpu").encode(texts)
base = transformers.AutoModel.from_pretrained(f"{folder}/student")
tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/student")
means = [base(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).detach().numpy() for text in texts]
found["pooling"] = float(numpy.abs(numpy.stack(means) - vectors).max())
print(json.dumps(found))
sys.argv = ["check.py"]
runpy.run_path(f"{folder}/squad/check.py", run_name="__main__")
"""


def test_opens_and_checks_without_distillery(exports: Path, tmp_path: Path) -> None:
    """In one process that has transformers and sentence-transformers alone, started elsewhere: importing them takes long."""
    (tmp_path / "opening.py").write_text(OPENING)
    process = subprocess.run(
        [sys.executable, "-I", "opening.py", str(exports)], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert process.returncode == 0, process.stderr[-3000:]
    *_, line, verdict = process.stdout.splitlines()
    assert verdict.startswith("model.safetensors (PyTorch): OK")
    assert "50 of 50 answers the same" in verdict
    found = json.loads(line)
    assert max(found[name] for name in NAMES) <= 1e-4
    assert found["pooling"] <= 1e-4
    assert found["filled"] == read(exports / "student", "golden.json")["inputs"][0]["answer"]
    assert found["label"] == read(exports / "sst2", "golden.json")["inputs"][0]["answer"]
    assert found["score"] == pytest.approx(read(exports / "stsb", "golden.json")["inputs"][0]["answer"], abs=1e-4)


def test_golden_inputs_are_of_all_kinds(exports: Path) -> None:
    for name in NAMES:
        golden = read(exports / name, "golden.json")
        lengths = [len(given["input_ids"]) for given in golden["inputs"]]
        assert len(lengths) == 50
        assert max(lengths) == golden["max_length"] == (MAX_LENGTH if name == "student" else TASK_LENGTH)
        assert len(set(lengths)) >= 5
        texts = ["".join(given["texts"]) for given in golden["inputs"]]
        assert any(not text.isascii() for text in texts)
        assert len({str(given["answer"]) for given in golden["inputs"]}) > 1
        assert ("token_type_ids" in golden["inputs"][0]) == (name == "stsb")
    spans = read(exports / "squad", "golden.json")["inputs"]
    assert all(given["answer"] in given["texts"][1] for given in spans)


@pytest.mark.parametrize("name", NAMES)
def test_check_sees_weights_that_are_not_those(
    exports: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(exports / name, tmp_path / "tampered")
    weights = load_file(folder / "model.safetensors")
    changed = next(key for key in weights if key.endswith(("layer.1.ffn.lin2.bias", "layer.1.output.dense.bias")))
    weights[changed] += 0.05 * (1 + weights[changed].abs().argsort() % 2)  # a constant would go away in the norm
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert checker(folder).main([str(folder)]) == 1
    told = capsys.readouterr().out
    assert "computes something else" in told
    assert "not the one that was exported" in told
    golden = read(folder, "golden.json")
    verdict = judge(golden, "model.safetensors", run_golden(golden, load_hugging_face(folder, 0)))
    assert not verdict.is_right
    assert f"{verdict.max_difference:.2g}" in verdict.reason


def test_check_of_what_is_damaged_missing_or_no_export(
    exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exports / "sst2", tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"half")
    check = checker(folder)
    assert check.main([str(folder)]) == 1
    assert "cannot be run" in capsys.readouterr().out
    assert check.main([str(tmp_path)]) == 2
    assert "no export" in capsys.readouterr().err
    monkeypatch.setattr(check, "is_installed", lambda package: package != "transformers")
    assert check.main([str(folder)]) == 2
    told = capsys.readouterr()
    assert "not tried" in told.out
    assert "pip install transformers" in told.out
    assert "nothing could be tried" in told.err


def test_the_card(exports: Path) -> None:
    for name in NAMES:
        _, front, body = (exports / name / "README.md").read_text().split("---\n", 2)
        card = yaml.safe_load(front)
        assert card["library_name"] == "transformers"
        assert "license" not in card, "nobody has said"
        assert "not on record" in body
        assert "| PyTorch | model.safetensors |" in body
        if name != "student":
            (entry,) = card["model-index"]
            metrics = {one["type"]: one["value"] for result in entry["results"] for one in result["metrics"]}
            assert set(metrics.values()) == {0.8}
            assert "80.00" in body
    assert (
        "sentence-transformers" in yaml.safe_load((exports / "student/README.md").read_text().split("---\n")[1])["tags"]
    )


def refused(input_folder: Path | str, output: Path, capsys: pytest.CaptureFixture[str], **more: object) -> str:
    given = ExportConfig(input=str(input_folder), output=str(output), **({"formats": ("hf",)} | more))  # type: ignore[arg-type]
    assert export.main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input(exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, new = exports / "made", tmp_path / "new"
    assert "no folder at" in refused(tmp_path / "nowhere", new, capsys)
    assert "neither a run nor a model" in refused(tmp_path, new, capsys)
    assert f"one of them: {made}/squad, {made}/sst2, {made}/stsb" in refused(made, new, capsys)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("mine")
    assert "is no export" in refused(made / "student", tmp_path / "kept", capsys)
    assert "which is read" in refused(made / "student", made, capsys)
    assert "no text" in refused(made / "student", new, capsys, data=str(write(tmp_path / "empty.txt", "\n")))
    assert "no folder" in refused(made / "sst2", new, capsys, data=str(tmp_path / "no_data"))
    unnamed = shutil.copytree(made / "stsb" / "model", tmp_path / "unnamed")
    assert "not known which task" in refused(unnamed, new, capsys, data=str(tmp_path))
    assert not new.exists()
    assert not new.with_name("new.partial").exists()
    (unnamed / "config.json").write_text((unnamed / "config.json").read_text().replace("SequenceCl", "TokenCl"))
    assert "BertForTokenClassification is not exported" in refused(unnamed, new, capsys)


def test_a_run_without_a_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"objective": "distil", "student_init": "teacher", "teacher": "t", "eval_data": "", "max_updates": 9}
    (tmp_path / "config.json").write_text(json.dumps({"flags": {**flags, "epochs": 1.0, "warmup_share": 0.1}}))
    assert "run without a student" in refused(tmp_path, tmp_path / "out", capsys)


def test_a_package_that_is_missing(
    exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    installs = {"onnx": "onnx onnxscript onnxruntime", "executorch": "executorch==", "litert": "--no-deps -r "}
    for name, install in installs.items():
        line = refused(exports / "made/student", tmp_path / "new", capsys, formats=("hf", name))
        assert f"pip install {install}" in line


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_help_and_mistyped_flags_answer_at_once() -> None:
    process = run(
        [sys.executable, "-X", "importtime", "export.py", "--input", "x", "--output", "y", "--max_drop", "-1"]
    )
    assert process.returncode == 2
    assert "--max_drop -1.0: points that may be lost" in process.stdout
    assert " torch" not in process.stdout


def test_a_model_whose_training_diverged_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = write_student(tmp_path / "student")
    weights = load_file(given / "model.safetensors")
    weights["distilbert.transformer.layer.1.output_layer_norm.bias"][3] = float("nan")
    save_file(weights, given / "model.safetensors", metadata={"format": "pt"})
    assert export.main(ExportConfig(input=str(given), output=str(tmp_path / "out"), formats=("hf",))) == 2
    assert f"error: {given}: its logits are not finite" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
