"""Ranges of activations for static quantization, from inputs as they come in use.

BERT's activations have a few channels that are 10 times as large as all others at one token of every input. Whether cutting
their highest values helps or ruins a model differs between models: 1e-5 of them was best and 1e-4 useless for the teacher
it was tried on. So several shares are tried, and the one whose outputs are nearest to the fp32 file's is taken.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from exporting.onnx_int8 import Ranges, Rounded, products_by_input, quantize
from exporting.onnx_session import open_session
from exporting.variant import Batch

SHARES = (0.0, 1e-6, 1e-5, 1e-4)
"""Of an activation's values that are cut at either end."""
JUDGES = 25
"""Inputs at most, spread over all, that decide between the shares."""
BINS = 8192
"""Of an activation's histogram."""


def calibrate(model: onnx.ModelProto, inputs: Sequence[Batch], rounded: Rounded) -> tuple[Ranges, float]:
    """Of every input of a product in the fp32 file: lowest and highest value; and the share that was cut."""
    histograms = _histograms(model, inputs)
    found = {share: {name: _cut(*one, share) for name, one in histograms.items()} for share in SHARES}
    sessions = {share: open_session(quantize(model, found[share], rounded).SerializeToString(), 0) for share in SHARES}
    exact, outputs = open_session(model.SerializeToString(), 0), [output.name for output in model.graph.output]
    errors = dict.fromkeys(SHARES, 0.0)
    for batch in inputs[:: -(-len(inputs) // JUDGES)]:
        expected = exact.run(outputs, dict(batch))
        for share, session in sessions.items():
            values = session.run(outputs, dict(batch))
            errors[share] += sum(float(np.mean((a - b) ** 2)) for a, b in zip(values, expected, strict=True))
    best = min(SHARES, key=errors.__getitem__)
    return found[best], best


def activations(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Batch]) -> Iterator[list[np.ndarray]]:
    """Of each input the values of these tensors in between."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]  # a vocabulary projection is left out by the session where nothing reads it
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = open_session(watched.SerializeToString(), 0)
    for batch in inputs:
        yield session.run(names, dict(batch))


def _histograms(model: onnx.ModelProto, inputs: Sequence[Batch]) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Counts and edges by activation. The inputs are read twice, so that no value has to be kept."""
    names = list(products_by_input(model))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in activations(model, names, inputs):
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    edges = [np.linspace(*ends, BINS + 1) for ends in zip(low, np.maximum(high, low + 1e-6), strict=True)]
    counts = np.zeros((len(names), BINS), dtype=np.int64)
    for values in activations(model, names, inputs):
        for row, value in enumerate(values):
            counts[row] += np.histogram(value, edges[row])[0]
    return {name: (counts[row], edges[row]) for row, name in enumerate(names)}


def _cut(counts: np.ndarray, edges: np.ndarray, share: float) -> tuple[float, float]:
    """The range without `share` of the values at either end."""
    most = share * counts.sum()
    first = int(np.argmax(np.cumsum(counts) > most))
    last = len(counts) - 1 - int(np.argmax(np.cumsum(counts[::-1]) > most))
    return float(edges[first]), float(edges[last + 1])
