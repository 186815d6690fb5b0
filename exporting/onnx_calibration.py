"""Ranges of activations from inputs as they come in use, for static quantization.

Shapes: L tokens of an input, K width of an activation.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from exporting.onnx_int8 import Ranges, product_inputs
from exporting.onnx_session import open_session
from exporting.variant import Batch


def calibrate(model: onnx.ModelProto, inputs: Sequence[Batch]) -> Ranges:
    """Of every input of a product in the fp32 file: lowest and highest value over all inputs."""
    names = product_inputs(model)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = open_session(watched.SerializeToString(), 0)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in inputs:
        values = session.run(names, dict(batch))
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
