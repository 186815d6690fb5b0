"""ExecuTorch's programs against transformers' own models: any length, padding, pruned heads, 8 bit, another process."""

import importlib.util
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exporting import executorch_export, executorch_runtime
from exporting.executorch_export import export_executorch
from exporting.executorch_file import share_tensors
from exporting.executorch_program import ByteEmbedding
from exporting.plain import plain_model
from exporting.variant import MissingPackageError, Run, Variant
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

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason=f"no executorch: {executorch_runtime.INSTALL}"
)


@dataclass(frozen=True, kw_only=True)
class Exported(Small):
    """With its programs."""

    folder: Path
    variants: dict[str, Variant]
    """By precision."""

    def run(self, precision: str, threads: int = 0) -> Run:
        return self.variants[precision].load(self.folder, threads)


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """DistilBERT without some of its heads, others in each layer; fp32."""
    return export(make_masked_lm(num_layers=2), tmp_path_factory.mktemp("mlm"), "fp32", "fp16", "int8_static")


@pytest.fixture(scope="module")
def masked_lm_int8(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(make_masked_lm(num_layers=1), tmp_path_factory.mktemp("mlm_int8"), "int8")


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(make_spans(), tmp_path_factory.mktemp("spans"), "fp32", "int8")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(make_classes(), tmp_path_factory.mktemp("classes"), "fp32", "int8")


def export(model: nn.Module, folder: Path, *precisions: str) -> Exported:
    given = small(model)
    variants = {each.precision: each for each in export_executorch(request(given, folder, *precisions))}
    return Exported(model=model, plain=given.plain, folder=folder, variants=variants)


@needs_executorch
def test_a_masked_lm_without_some_heads_equals_transformers(masked_lm: Exported) -> None:
    assert set(masked_lm.variants) == {"fp32"}, "others are left out without a word"
    assert masked_lm.plain.shape.num_heads == (3, 1)
    assert largest_difference(masked_lm, masked_lm.run("fp32")) < 1e-5


@needs_executorch
def test_8_bit_is_close_and_small(masked_lm_int8: Exported) -> None:
    batch = batch_of(masked_lm_int8, 40)
    (found,), (right,) = masked_lm_int8.run("int8")(batch), expected(masked_lm_int8, batch)
    assert cosine(found, right) > 0.999
    assert (found.argmax(-1) == right.argmax(-1)).mean() > 0.9
    size = (masked_lm_int8.folder / masked_lm_int8.variants["int8"].file).stat().st_size
    weights = 4 * sum(parameter.numel() for parameter in masked_lm_int8.plain.parameters())
    assert size < 0.5 * weights, (size, weights)


@needs_executorch
def test_the_tied_embedding_is_in_the_file_once(masked_lm: Exported, masked_lm_int8: Exported) -> None:
    word = masked_lm.plain.encoder.word
    fp32 = (masked_lm.folder / masked_lm.variants["fp32"].file).read_bytes()
    assert fp32.count(word.weight.detach().numpy()[200:204].tobytes()) == 1
    assert share_tensors(fp32) == fp32
    int8 = (masked_lm_int8.folder / masked_lm_int8.variants["int8"].file).read_bytes()
    assert int8.count(ByteEmbedding(masked_lm_int8.plain.encoder.word).table[200:204].numpy().tobytes()) == 1
    for file in (fp32, int8):
        begin, size = struct.unpack_from("<QQ", file, 24)
        assert begin + size == len(file), "the header says where the file ends"


@needs_executorch
def test_all_products_run_in_xnnpack(masked_lm: Exported, masked_lm_int8: Exported) -> None:
    light = {"_to_dim_order_copy", "arange", "embedding", "native_layer_norm", "sub", "unsqueeze_copy"}
    for remark, parts in ((masked_lm.variants["fp32"].remark, 7), (masked_lm_int8.variants["int8"].remark, 5)):
        inside, outside = remark.split("portable kernels run ")
        assert f"in {parts} parts" in inside
        assert set(outside.split(": ")[1].split(", ")) == light


@needs_executorch
def test_programs_for_other_numbers_of_threads_outlive_each_other(masked_lm: Exported) -> None:
    batch = batch_of(masked_lm, 30, 7)
    one, two = masked_lm.run("fp32", threads=1), masked_lm.run("fp32", threads=2)
    answers = [run(batch)[0] for run in (one, two, one, two)]
    assert executorch_runtime.require_executorch().bindings._threadpool_get_thread_count() == 2
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


@needs_executorch
def test_what_cannot_be_run_is_refused_in_a_sentence(masked_lm: Exported, tmp_path: Path) -> None:
    run = masked_lm.run("fp32")
    for length in (POSITIONS + 1, 0):
        batch = {name: np.ones((1, length), dtype=np.int64) for name in masked_lm.plain.input_names}
        with pytest.raises(ValueError, match=f"model.pte takes 1 to {POSITIONS} tokens, not {length}"):
            run(batch)
    (tmp_path / "torn.pte").write_bytes((masked_lm.folder / masked_lm.variants["fp32"].file).read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"torn.pte: not a program that this ExecuTorch can load"):
        executorch_runtime.LoadedProgram(tmp_path / "torn.pte")
    with pytest.raises(FileNotFoundError, match="no program at"):
        executorch_runtime.LoadedProgram(tmp_path / "none.pte")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setattr(executorch_export, "require_executorch", executorch_runtime.require_executorch.__wrapped__)
    model = make_masked_lm(num_layers=1)
    with pytest.raises(MissingPackageError, match=r"^executorch is not installed: pip install executorch==1\.5\.1$"):
        export(model, tmp_path, "fp32")


ALONE = """
assert importlib.util.find_spec("exporting") is None and importlib.util.find_spec("model") is None
batch = dict(np.load("batch.npz"))
for name in ("model", "model_int8"):
    np.savez(f"{name}.npz", *LoadedProgram(Path(f"{name}.pte"), threads=1)(batch))
assert "transformers" not in sys.modules
"""


@needs_executorch
def test_another_process_without_distillery_computes_the_same(
    masked_lm: Exported, masked_lm_int8: Exported, tmp_path: Path
) -> None:
    batch = batch_of(masked_lm, 33, 12)
    np.savez(tmp_path / "batch.npz", **batch)
    for exported, precision in ((masked_lm, "fp32"), (masked_lm_int8, "int8")):
        file = exported.folder / exported.variants[precision].file
        shutil.copy(file, tmp_path / file.name)
    text = Path(executorch_runtime.__file__).read_text(encoding="utf-8")
    (tmp_path / "alone.py").write_text(text + ALONE, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "alone.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name, run in (("model", masked_lm.run("fp32")), ("model_int8", masked_lm_int8.run("int8"))):
        (alone,) = np.load(tmp_path / f"{name}.npz").values()
        np.testing.assert_allclose(alone, run(batch)[0], atol=1e-6)


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("which", ["spans", "classes"])
def test_tasks_equal_transformers(which: str, spans: Exported, classes: Exported) -> None:
    exported = {"spans": spans, "classes": classes}[which]
    assert largest_difference(exported, exported.run("fp32")) < 1e-5
    batch = batch_of(exported, 40, 9)
    for found, right in zip(exported.run("int8")(batch), expected(exported, batch), strict=True):
        assert cosine(found[0], right[0]) > 0.99
        assert found[0].argmax() == right[0].argmax()


EXPORT = """
import sys, torch
from exporting.executorch_program import make_program
make_program(torch.load(sys.argv[1], weights_only=False), 16, int8=True)
"""


@needs_executorch
@pytest.mark.slow
def test_exporting_prints_nothing(tmp_path: Path) -> None:
    torch.save(plain_model(make_masked_lm(num_layers=1)), tmp_path / "plain.pt")
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path / "plain.pt")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
