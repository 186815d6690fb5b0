"""Ranges of activations for static quantization, from inputs as they come in use.

BERT's activations have a few channels that are 10 times as large as all others at one token of every input. Whether cutting
their highest values helps or ruins a model differs between models: 1e-5 of them was best and 1e-4 useless for the teacher
it was tried on. So several shares are tried, and the one whose outputs are nearest to the fp32 file's is taken.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from exporting.onnx_int8 import Ranges, product_inputs, quantize
from exporting.onnx_session import open_session
from exporting.variant import Batch

SHARES = (0.0, 1e-6, 1e-5, 1e-4)
"""Of an activation's values that are cut at either end."""
BINS = 8192
"""Of an activation's histogram."""


def calibrate(model: onnx.ModelProto, inputs: Sequence[Batch]) -> tuple[Ranges, float]:
    """Of every input of a product in the fp32 file: lowest and highest value; and the share that was cut."""
    histograms = _histograms(model, inputs)
    outputs = [output.name for output in model.graph.output]
    session = open_session(model.SerializeToString(), 0)
    expected = [session.run(outputs, dict(batch)) for batch in inputs]
    found = []
    for share in SHARES:
        ranges = {name: _cut(*histogram, share) for name, histogram in histograms.items()}
        session = open_session(quantize(model, ranges).SerializeToString(), 0)
        errors = [
            float(np.mean((value - other) ** 2))
            for batch, row in zip(inputs, expected, strict=True)
            for value, other in zip(session.run(outputs, dict(batch)), row, strict=True)
        ]
        found.append((float(np.mean(errors)), share, ranges))
    _, share, ranges = min(found, key=lambda one: one[0])
    return ranges, share


def _histograms(model: onnx.ModelProto, inputs: Sequence[Batch]) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Counts and edges by activation. The inputs are read twice, so that no value has to be kept."""
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
    edges = [np.linspace(*ends, BINS + 1) for ends in zip(low, np.maximum(high, low + 1e-6), strict=True)]
    counts = np.zeros((len(names), BINS), dtype=np.int64)
    for batch in inputs:
        for row, value in enumerate(session.run(names, dict(batch))):
            counts[row] += np.histogram(value, edges[row])[0]
    return {name: (counts[row], edges[row]) for row, name in enumerate(names)}


def _cut(counts: np.ndarray, edges: np.ndarray, share: float) -> tuple[float, float]:
    """The range without `share` of the values at either end."""
    most = share * counts.sum()
    first = int(np.argmax(np.cumsum(counts) > most))
    last = len(counts) - 1 - int(np.argmax(np.cumsum(counts[::-1]) > most))
    return float(edges[first]), float(edges[last + 1])
