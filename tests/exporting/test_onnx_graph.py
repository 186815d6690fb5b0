"""The fp32 file against the graph it is made of, in a process that has onnxruntime and numpy alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporting.onnx_graph import check_nodes, export_graph
from tests.exporting.onnx_models import (
    CLASSES,
    LONGEST,
    MLM,
    SPAN,
    VOCABULARY,
    WIDTH,
    batch_of,
    counts,
    expected,
    exported,
    in_session,
    pruned,
    weights,
)
from tests.launch import ROOT, environment

SOME = (("distilbert", MLM), ("bert", SPAN), ("roberta", CLASSES))
OTHERS = (
    ("bert", MLM),
    ("roberta", MLM),
    ("distilbert", SPAN),
    ("roberta", SPAN),
    ("bert", CLASSES),
    ("distilbert", CLASSES),
)
LENGTHS = ((1,), (2,), (7,), (LONGEST,), (5, 9), (LONGEST, 1), (3, 11, 6))
STAND_ALONE = """
import sys
import numpy, onnxruntime
for folder in sys.argv[1:]:
    session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    worst = 0.0
    for number in range(7):
        given = numpy.load(f"{folder}/{number}.npz")
        found = session.run(None, {name: given[name] for name in names})
        for name, value in zip([one.name for one in session.get_outputs()], found):
            assert value.shape == given[name].shape, (value.shape, given[name].shape)
            worst = max(worst, float(abs(value - given[name]).max()))
    print(folder, worst)
assert "torch" not in sys.modules and "exporting" not in sys.modules
"""


def differences(folder: Path, *models: tuple[object, onnx.ModelProto]) -> list[float]:
    """Of each model the largest one over all `LENGTHS`, seen by a process of its own."""
    folders = []
    for number, (plain, model) in enumerate(models):
        own = folder / str(number)
        own.mkdir()
        onnx.save(model, own / "model.onnx")
        for row, lengths in enumerate(LENGTHS):
            batch = batch_of(plain, *lengths)
            outputs = dict(zip(plain.output_names, expected(plain, batch), strict=True))
            np.savez(own / f"{row}.npz", **batch, **outputs)
        folders.append(str(own))
    command = [sys.executable, "-c", STAND_ALONE, *folders]
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert process.returncode == 0, process.stderr
    found = dict(line.rsplit(" ", 1) for line in process.stdout.splitlines())
    return [float(found[name]) for name in folders]


def test_equals_the_plain_model_in_a_process_without_torch(tmp_path: Path) -> None:
    found = differences(tmp_path, *(exported(*one) for one in SOME), pruned())
    assert max(found) <= 1e-5, found  # 1e-4 is allowed of real ones, whose logits are larger


@pytest.mark.slow
def test_every_head_of_every_family_equals_the_plain_model(tmp_path: Path) -> None:
    found = differences(tmp_path, *(exported(*one) for one in OTHERS))
    assert max(found) <= 1e-5, found


@pytest.mark.parametrize(("family", "head"), SOME)
def test_nothing_has_fallen_apart(family: str, head: type) -> None:
    plain, model = exported(family, head)
    found, executed = counts(model), in_session(model)
    is_mlm = head is MLM
    assert (found["MultiHeadAttention"], found["Gelu"], found["LayerNormalization"]) == (2, 2 + is_mlm, 5 + is_mlm)
    assert not found.keys() & {"Softmax", "Erf", "Sqrt", "Pow", "Tanh" if head is not CLASSES else "Erf"}
    assert executed["BiasGelu"] == 2 + is_mlm  # bias and GELU, residual and norm: these a session fuses
    assert executed["SkipLayerNormalization"] in (4, 5)
    assert [one.name for one in model.graph.input] == list(plain.input_names)
    assert [one.name for one in model.graph.output] == list(plain.output_names)
    for one in model.graph.input:
        assert [dim.dim_param for dim in one.type.tensor_type.shape.dim] == ["batch", "length"]


def test_heads_of_each_layer() -> None:
    _, model = pruned()
    heads = [
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "MultiHeadAttention" and attribute.name == "num_heads"
    ]
    assert heads == [2, 3]
    assert {imported.domain: imported.version for imported in model.opset_import}[""] == 23


def test_a_tied_projection_is_in_the_file_once() -> None:
    plain, model = exported("distilbert", MLM)
    tables = [name for name, value in weights(model).items() if set(value.shape) == {VOCABULARY, WIDTH}]
    assert len(tables) == 1
    own = sum(parameter.nbytes for parameter in plain.parameters())
    assert own < model.ByteSize() < own + VOCABULARY * WIDTH * 4


def test_another_graph_is_refused() -> None:
    plain, model = exported("distilbert", MLM)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    next(node for node in changed.graph.node if node.op_type == "Gelu").op_type = "Erf"
    with pytest.raises(ValueError, match="2 Gelu instead of 3, 1 Erf instead of 0"):
        check_nodes(changed, plain)
    changed.CopyFrom(model)
    table = next(tensor for tensor in changed.graph.initializer if list(tensor.dims) == [VOCABULARY, WIDTH])
    changed.graph.initializer.add().CopyFrom(table)
    changed.graph.initializer[-1].name = "a copy"
    with pytest.raises(ValueError, match="bytes of weights instead of"):
        check_nodes(changed, plain)
    projection = next(node for node in changed.graph.node if table.name in node.input and node.op_type == "Gemm")
    projection.input[1] = "a copy"
    with pytest.raises(ValueError, match="does not read the word embedding"):
        check_nodes(changed, plain)


@pytest.mark.parametrize("opset", [17, 19, 24])
def test_an_opset_that_cannot_be_exported_is_refused(opset: int) -> None:
    plain, _ = exported("distilbert", MLM)
    with pytest.raises(ValueError, match=f"--opset {opset}: torch .* opsets 20 to 23"):
        export_graph(plain, opset)


def test_nothing_of_this_machine_is_in_the_file() -> None:
    content = exported("bert", SPAN)[1].SerializeToString()
    for word in (str(ROOT), "site-packages", "exporting", ".py"):
        assert word.encode() not in content


@pytest.mark.slow
def test_the_same_bytes_from_another_process(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from tests.exporting.onnx_models import exported, MLM;"
        "pathlib.Path(sys.argv[1]).write_bytes(exported('distilbert', MLM)[1].SerializeToString(deterministic=True))"
    )
    changed = environment() | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "a"], check=True, cwd=ROOT, env=changed, timeout=200)
    assert (tmp_path / "a").read_bytes() == exported("distilbert", MLM)[1].SerializeToString(deterministic=True)
