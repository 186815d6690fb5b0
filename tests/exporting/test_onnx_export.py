"""export_onnx: which files, what they say, and that they are loaded from wherever the folder is in the end."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from exporting.onnx_export import export_onnx
from exporting.onnx_rounding import round_products
from exporting.onnx_session import load_file
from exporting.variant import Request, total_bytes
from tests.exporting.onnx_models import batch_of, expected, larger, weights


def request(folder: Path, *precisions: str, opset: int = 20) -> Request:
    plain, _ = larger()
    return Request(
        plain=plain,
        folder=folder,
        precisions=precisions,
        max_length=64,
        pad_id=0,
        calibration=[batch_of(plain, length) for length in (4, 11, 30)],
        calibration_source="random words",
        opset=opset,
    )


def test_every_precision_in_its_file(tmp_path: Path) -> None:
    made, moved = tmp_path / "made", tmp_path / "moved"
    made.mkdir()
    plain, _ = larger()
    variants = export_onnx(request(made, "int8_static", "int8", "fp16", "fp32"))
    made.rename(moved)
    assert [(one.precision, one.file) for one in variants] == [
        ("fp32", "onnx/model.onnx"),
        ("fp16", "onnx/model_fp16.onnx"),
        ("int8", "onnx/model_int8.onnx"),
        ("int8_static", "onnx/model_int8_static.onnx"),
    ]
    assert sorted(path.name for path in (moved / "onnx").iterdir()) == sorted(Path(one.file).name for one in variants)
    batch = batch_of(plain, 12, 5)
    reference = expected(plain, batch)[0]
    sizes, errors = [], []
    for one in variants:
        (found,) = one.load(moved, 1)(batch)
        errors.append(float(np.abs(found - reference).max()))
        sizes.append(total_bytes(one, moved))
    assert errors[0] < 1e-5 < errors[1] < min(errors[2:])
    assert sizes[0] > 1.9 * sizes[1]
    assert sizes[0] > 3.3 * max(sizes[2:])
    assert all("3 inputs (random words)" in one.remark for one in variants[2:])
    _, model = larger()
    rounded = round_products(model, request(moved).calibration)
    for one in variants[2:]:
        found = weights(onnx.load(moved / one.file))
        for name, values in rounded.items():
            np.testing.assert_array_equal(found[f"{name}_int8"], values)


def test_a_precision_that_onnx_does_not_have_is_left_out(tmp_path: Path) -> None:
    (only,) = export_onnx(request(tmp_path, "int4", "int8"))
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model_int8.onnx"]
    assert only.runtime.startswith("onnxruntime 1.")


def test_an_opset_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--opset 18"):
        export_onnx(request(tmp_path, "fp32", opset=18))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_none_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no protocol buffer")
    with pytest.raises(ValueError, match=r"onnxruntime 1\..* cannot open .*model\.onnx"):
        load_file(tmp_path / "model.onnx", 1)
