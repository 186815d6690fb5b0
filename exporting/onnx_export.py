"""A student as .onnx files: fp32, fp16, int8 and int8_static, by the names that transformers.js looks for."""

import onnx

from exporting.onnx_calibration import calibrate
from exporting.onnx_graph import export_graph
from exporting.onnx_half import to_half
from exporting.onnx_int8 import Rounded, quantize
from exporting.onnx_rounding import round_products
from exporting.onnx_session import RUNTIME, load_file
from exporting.variant import Request, Variant, write_variant

FILES = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int8": "onnx/model_int8.onnx",
    "int8_static": "onnx/model_int8_static.onnx",
}
"""Precision -> below the export's folder."""


def export_onnx(request: Request) -> list[Variant]:
    """Errors: ValueError for an opset or a model that is not exported, OSError."""
    graph = export_graph(request.plain, request.opset)
    is_rounded = {"int8", "int8_static"} & set(request.precisions)
    rounded = round_products(graph, request.calibration) if is_rounded else {}
    variants = []
    for precision, file in FILES.items():
        if precision in request.precisions:
            model, remark = _convert(graph, precision, rounded, request)
            variants.append(
                write_variant(
                    request,
                    model.SerializeToString(deterministic=True),
                    format="onnx",
                    precision=precision,
                    file=file,
                    runtime=RUNTIME,
                    load=load_file,
                    remark=remark,
                )
            )
    return variants


def _convert(graph: onnx.ModelProto, precision: str, rounded: Rounded, request: Request) -> tuple[onnx.ModelProto, str]:
    """The file, and what to know of it."""
    if precision == "fp32":
        return graph, ""
    if precision == "fp16":
        return to_half(graph), "on a CPU computed in fp32: it saves bytes, no time"
    inputs = f"{len(request.calibration):,} inputs ({request.calibration_source})"
    if precision == "int8":
        return quantize(graph, None, rounded), f"weights are rounded for {inputs}, each token has its own scale"
    ranges, share = calibrate(graph, request.calibration, rounded)
    remark = f"weights and ranges of activations are fitted to {inputs}"
    return quantize(graph, ranges, rounded), remark + (f", {share:g} of the values cut" if share else "")
