"""int8 and fp16 files against the fp32 one, against onnxruntime's own quantizer, and what is in them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from exporting import onnx_calibration, onnx_rounding
from exporting.onnx_calibration import calibrate
from exporting.onnx_half import to_half
from exporting.onnx_int8 import PRODUCT_LEVELS, channel_scales, products_by_input, quantize
from exporting.onnx_rounding import round_products
from exporting.variant import Batch
from tests.exporting.onnx_models import (
    CLASSES,
    SPAN,
    batch_of,
    counts,
    expected,
    exported,
    in_session,
    larger,
    pruned,
    run,
    weights,
)

INTEGER = ("MatMulInteger", "MatMulIntegerToFloat", "QGemm")


def inputs(seed: int = 0) -> list[Batch]:
    plain, _ = larger()
    return [batch_of(plain, length) for length in range(5 + seed, 60, 9)]


def static() -> onnx.ModelProto:
    _, model = larger()
    return quantize(model, calibrate(model, inputs(), {})[0])


def relative_error(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("is_static", [False, True])
def test_says_the_same_as_fp32_in_a_quarter_of_the_bytes(is_static: bool) -> None:
    plain, model = larger()
    small = static() if is_static else quantize(model)
    same = []
    for batch in inputs(seed=2):
        (reference,), (found,) = expected(plain, batch), run(small, batch)
        assert found.dtype == np.float32
        assert relative_error(found, reference) < 0.06
        same += (found.argmax(-1) == reference.argmax(-1)).flatten().tolist()
    assert np.mean(same) > 0.85  # of 1,500 words with random weights the first two are often near
    assert model.ByteSize() / small.ByteSize() > 3.5
    onnx.checker.check_model(small)


def test_is_as_near_as_onnxruntimes_own_quantizer(tmp_path: Path) -> None:
    """Theirs leaves the tied projection in fp32 and has 8 bits, so that it may be a little nearer."""
    plain, model = larger()
    quantize_dynamic(
        model, tmp_path / "theirs.onnx", op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )
    theirs, ours = onnx.load(tmp_path / "theirs.onnx"), quantize(model)
    errors = np.array(
        [
            [relative_error(run(one, batch)[0], expected(plain, batch)[0]) for one in (ours, theirs)]
            for batch in inputs()
        ]
    )
    assert errors[:, 0].mean() < 2 * errors[:, 1].mean()


def test_a_table_is_in_the_file_once_and_every_other_weight_in_8_bits() -> None:
    plain, model = larger()
    word = plain.encoder.word.weight.numpy()
    for small in (quantize(model), static()):
        found = weights(small)
        (table,) = [name for name, value in found.items() if value.shape == word.shape]
        assert found[table].dtype == np.int8
        scale = found[f"{table.removesuffix('_int8')}_scale"]
        assert np.abs(found[table] * scale[:, None] - word).max() <= scale.max() / 2 + 1e-7
        assert {node.op_type for node in small.graph.node if table in node.input} == {"Gather", "QGemm"}
        assert not [name for name, value in found.items() if value.dtype == np.float32 and value.ndim > 1]


def test_two_products_never_overflow_16_bits() -> None:
    """As processors without 8-bit dot products add them: unsigned activation x signed weight, twice, saturating."""
    for (_, model), num_products in ((larger(), 6 * 2 + 2), (pruned(), 6 * 2 + 1)):
        small = quantize(model)
        read = {name for node in small.graph.node if node.op_type in INTEGER for name in node.input}
        factors = [value for name, value in weights(small).items() if name in read and value.dtype == np.int8]
        assert len([value for value in factors if value.ndim == 2]) == num_products
        assert max(int(np.abs(value.astype(int)).max()) for value in factors) == PRODUCT_LEVELS
    assert 2 * 255 * PRODUCT_LEVELS < 2**15


@pytest.mark.parametrize(("family", "head", "left"), [("bert", SPAN, "MatMul"), ("roberta", CLASSES, "Gemm")])
def test_the_last_projection_stays_and_every_other_product_is_integer(family: str, head: type, left: str) -> None:
    plain, model = exported(family, head)
    small, batch = quantize(model), batch_of(plain, 9, 4)
    assert counts(small)["MatMul"] + counts(small)["Gemm"] == counts(small)[left] == 1
    executed = in_session(small)
    assert executed["MatMulIntegerToFloat"] + executed["DynamicQuantizeMatMul"] == 12 + (head is CLASSES)
    assert not executed["MatMulInteger"]
    assert executed["SkipLayerNormalization"] >= 4
    for found, reference in zip(run(small, batch), expected(plain, batch), strict=True):
        assert np.abs(found - reference).max() < 0.05


def test_pruned_heads() -> None:
    plain, model = pruned()
    batch = batch_of(plain, 8)
    assert relative_error(run(quantize(model), batch)[0], expected(plain, batch)[0]) < 0.05


def test_a_token_of_large_activations_does_not_round_the_others() -> None:
    """Two products, of which the last stays in fp32. A token of zeros stays one."""
    draw = np.random.default_rng(0)
    first, last = (draw.normal(size=shape).astype(np.float32) for shape in ((64, 32), (32, 8)))
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "first"], ["y"], "one"),
            onnx.helper.make_node("MatMul", ["y", "last"], ["z"], "two"),
        ],
        "products",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["L", 64])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["L", 8])],
        [onnx.numpy_helper.from_array(first, "first"), onnx.numpy_helper.from_array(last, "last")],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = draw.normal(size=(9, 64)).astype(np.float32)
    x[3] *= 50
    x[4] = 0
    (exact,), (found,) = (run(one, {"x": x}) for one in (model, quantize(model)))
    for row in range(9):
        assert np.linalg.norm(found[row] - exact[row]) <= 0.03 * np.linalg.norm(exact[row])


def test_weights_are_rounded_for_what_they_compute() -> None:
    """Against rounding to the nearest, of products that it was not calibrated on; and in the file as they were rounded."""
    plain, model = larger()
    rounded = round_products(model, inputs())
    assert list(rounded) == [weight for weights in products_by_input(model).values() for weight in weights]
    nearest, better = quantize(model), quantize(model, None, rounded)
    errors = np.array(
        [
            [relative_error(run(one, batch)[0], expected(plain, batch)[0]) for one in (nearest, better)]
            for batch in inputs(seed=4)
        ]
    )
    assert errors[:, 1].mean() < 0.95 * errors[:, 0].mean()
    fp32, int8 = weights(model), weights(better)
    for name, values in rounded.items():
        np.testing.assert_array_equal(int8[f"{name}_int8"], values)
        off = np.abs(values - fp32[name] / channel_scales(fp32[name], 1, PRODUCT_LEVELS))
        assert 0.5 < off.max() < 4, "another neighbour is taken at times, never one far away"
        assert np.abs(values.astype(int)).max() <= PRODUCT_LEVELS


@pytest.mark.parametrize(("num_inputs", "num_tokens"), [(300, 500), (140, 60), (300, 5)])
def test_rounding_is_that_of_gptq_without_its_shortcuts(num_inputs: int, num_tokens: int) -> None:
    """Row by row, each time with the inverse of what is left; a dead input, an output of zeros and an outlier among them."""
    draw = np.random.default_rng(num_inputs + num_tokens)
    x = draw.normal(size=(num_tokens, num_inputs)) @ draw.normal(size=(num_inputs, num_inputs)) * 0.1
    x[:, 3] = 0
    x[:, 7] *= 100
    x = x.astype(np.float32)
    values = draw.normal(size=(num_inputs, 6)).astype(np.float32)
    values[:, 2] = 0
    moments = x.T @ x
    found = onnx_rounding._round(values, moments, num_tokens)

    diagonal = np.diag(moments).astype(np.float64)
    damping = max(0.01, 0.1 * num_inputs / num_tokens) * diagonal.mean()
    hessian = moments.astype(np.float64) + damping * np.eye(num_inputs)
    scale = np.maximum(np.abs(values).max(axis=0) / PRODUCT_LEVELS, 1e-30).astype(np.float32).astype(np.float64)
    left, right, rows = values.astype(np.float64), np.zeros(values.shape), list(np.argsort(-diagonal, kind="stable"))
    while rows:
        inverse = np.linalg.inv(hessian[np.ix_(rows, rows)])
        row, *others = rows
        right[row] = np.clip(np.rint(left[row] / scale), -PRODUCT_LEVELS, PRODUCT_LEVELS)
        error = left[row] - right[row] * scale
        left[others] -= np.outer(inverse[1:, 0], error) / inverse[0, 0]
        rows = others
    assert (found == right).mean() > 0.999  # a value in the middle of two may fall otherwise

    def lost(rounded: np.ndarray) -> float:
        return float(np.linalg.norm(x @ (rounded * scale - values)))

    assert lost(found) < 0.9 * lost(np.rint(values / scale))


def test_static_ranges_are_those_of_the_calibration_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, model = larger()
    monkeypatch.setattr(onnx_calibration, "SHARES", (0.0,))
    ranges, share = calibrate(model, inputs(), {})
    assert share == 0.0
    assert list(ranges) == list(products_by_input(model))
    seen: list[torch.Tensor] = []
    handle = plain.encoder.layers[1].ffn_out.register_forward_hook(
        lambda _module, given, _output: seen.append(given[0])
    )
    for batch in inputs():
        expected(plain, batch)
    handle.remove()
    true = min(float(value.min()) for value in seen), max(float(value.max()) for value in seen)
    found = [pair for pair in ranges.values() if np.allclose(pair, true, rtol=1e-4)]
    assert len(found) == 1
    other, _ = calibrate(model, inputs(seed=3)[:2], {})
    assert all(pair != other[name] for name, pair in ranges.items())
    names = [name for name in weights(quantize(model, ranges)) if name.endswith("_scale")]
    ours, theirs = weights(quantize(model, ranges)), weights(quantize(model, other))
    assert any(ours[name] != theirs[name] for name in names if ours[name].ndim == 0)


def test_the_share_that_is_cut_is_the_one_nearest_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, model = larger()
    errors = {}
    for share in (0.0, 1e-4, 0.02):
        monkeypatch.setattr(onnx_calibration, "SHARES", (share,))
        small = quantize(model, calibrate(model, inputs(), {})[0])
        errors[share] = np.mean([np.mean((run(small, one)[0] - expected(plain, one)[0]) ** 2) for one in inputs()])
    monkeypatch.setattr(onnx_calibration, "SHARES", tuple(errors))
    assert calibrate(model, inputs(), {})[1] == min(errors, key=errors.__getitem__)
    assert len(set(errors.values())) == 3


def test_the_residual_stream_is_not_rounded() -> None:
    small = static()
    read = {output for node in small.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    assert {node.op_type for node in small.graph.node if read & set(node.input)} == {"MatMul"}
    assert in_session(small)["MatMulIntegerToFloat"] == 13


def test_half_has_half_the_bytes_and_norms_in_fp32() -> None:
    plain, model = larger()
    small, batch = to_half(model), inputs()[2]
    (found,), (reference,) = run(small, batch), expected(plain, batch)
    assert found.dtype == np.float32
    assert {one.type.tensor_type.elem_type for one in small.graph.input} == {onnx.TensorProto.INT64}
    assert 0 < relative_error(found, reference) < 2e-3
    assert model.ByteSize() / small.ByteSize() > 1.9
    kept = {name for node in small.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:]}
    assert {value.dtype for name, value in weights(small).items() if name in kept} == {np.dtype(np.float32)}
    assert len([1 for value in weights(small).values() if value.shape == (1500, 96)]) == 1
    assert counts(model)["LayerNormalization"] == 6  # the fp32 file was not changed


def test_onnxruntime_has_kernels_for_all_of_it_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    for model in (quantize(larger()[1]), static()):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert capfd.readouterr().err == ""
