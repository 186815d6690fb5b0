"""Weights in 8 bits, rounded so that products are near, not weights: GPTQ (Frantar et al. 2022, arXiv 2210.17323).

What rounding an input's row of weights changes in the outputs is made up for by the rows that are not rounded yet, as far as
the inputs are correlated. The rows of the largest inputs come first.
Shapes: K inputs and N outputs of a product, n tokens of calibration.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from exporting.onnx_calibration import activations
from exporting.onnx_int8 import PRODUCT_LEVELS, Rounded, channel_scales, products_by_input
from exporting.variant import Batch

BLOCK = 128
"""Rows that are rounded before the rows behind them are told."""
DAMPING = 0.01
"""Of the inputs' mean square, added to all of them, as published."""
FEW = 0.1
"""The same, times K / n: fewer tokens than inputs say little of how these are correlated."""


def round_products(model: onnx.ModelProto, inputs: Sequence[Batch]) -> Rounded:
    """Of every weight that all tokens are multiplied with; from inputs as they come in use. Takes seconds to minutes."""
    products = products_by_input(model)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    moments, num_tokens = _second_moments(model, list(products), inputs)
    rounded: dict[str, np.ndarray] = {}
    for name, weights in products.items():
        matrices = [numpy_helper.to_array(arrays[weight]) for weight in weights]
        together = _round(np.concatenate(matrices, axis=1), moments.pop(name), num_tokens)
        ends = np.cumsum([matrix.shape[1] for matrix in matrices])
        rounded |= zip(weights, np.split(together, ends[:-1], axis=1), strict=True)
    return rounded


def _second_moments(
    model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Batch]
) -> tuple[dict[str, np.ndarray], int]:
    """Of each activation (n, K): (K, K), summed over tokens; and n."""
    sums: dict[str, np.ndarray] = {}
    num_tokens = 0
    for values in activations(model, names, inputs):
        for name, value in zip(names, values, strict=True):
            rows = value.reshape(-1, value.shape[-1])
            product = rows.T @ rows
            sums[name] = sums[name] + product if name in sums else product
        num_tokens += len(rows)
    return sums, num_tokens


def _round(values: np.ndarray, moments: np.ndarray, num_tokens: int) -> np.ndarray:
    """(K, N), (K, K) -> (K, N) of int8."""
    scale = channel_scales(values, 1, PRODUCT_LEVELS).astype(np.float64)
    diagonal = np.diag(moments).astype(np.float64)
    order = np.argsort(-diagonal, kind="stable")
    damping = max(DAMPING, FEW * len(values) / num_tokens) * max(diagonal.mean(), np.finfo(np.float32).tiny)
    hessian = moments[np.ix_(order, order)].astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += damping
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left = values[order].astype(np.float64)
    found = np.empty(values.shape, dtype=np.int8)
    for first in range(0, len(left), BLOCK):
        behind = min(first + BLOCK, len(left))
        errors = np.empty((behind - first, left.shape[1]))
        for row in range(first, behind):
            whole = np.clip(np.rint(left[row] / scale), -PRODUCT_LEVELS, PRODUCT_LEVELS)
            found[order[row]] = whole
            errors[row - first] = error = (left[row] - whole * scale) / upper[row, row]
            left[row + 1 : behind] -= np.outer(upper[row, row + 1 : behind], error)
        left[behind:] -= upper[first:behind, behind:].T @ errors
    return found
