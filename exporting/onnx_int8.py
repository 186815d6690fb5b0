"""ONNX in fp32 -> in int8: weights for each output channel, embeddings for each row, activations unsigned.

Dynamic: each token's activations have their own scale, since a few tokens of every input are many times as large as all
others. Static: an activation's range is given, from calibration, but for the vocabulary projection and a classifier's hidden
layer, which take that of the input at hand, in either case. The residual stream, norms, GELU and attention are in fp32, and
so is a task's last projection, which costs nothing.
onnxruntime's own quantizers are not used: the static one sends the residual stream through 8 bits where it feeds a product,
and neither shares a table between the embedding and the vocabulary projection.

Weights of products have 7 bits. Processors without 8-bit dot products (AVX2; also relaxed WebAssembly on them) add two
products u8 x s8 in 16 bits, which saturate: with weights in [-64, 64] two are at most 2 x 255 x 64 = 32,640 < 32,768,
so that one file computes the same everywhere.
Shapes: K inputs and N outputs of a product, V vocabulary, H width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Ranges = Mapping[str, tuple[float, float]]
"""Tensor of the fp32 file -> lowest and highest value."""

Rounded = Mapping[str, np.ndarray]
"""Weight of the fp32 file -> (K, N) of int8, in units of `channel_scales`."""

PRODUCT_LEVELS, ROW_LEVELS = 64, 127
"""Largest magnitudes of a quantized weight: of a product, and of a table that is only read."""
TOKEN_LEVELS = 127
"""Largest magnitude of a token's activations."""
TINY = 1e-30
"""A channel of zeros has this scale, not 0."""


def quantize(model: onnx.ModelProto, ranges: Ranges | None = None, rounded: Rounded | None = None) -> onnx.ModelProto:
    """A new file; dynamic without `ranges`, which must have every name of `products_by_input`.

    Weights that `rounded` does not have are rounded to the nearest.
    """
    return _Quantizer(model, ranges, rounded or {}).run()


def products_by_input(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Activation -> weights that it is multiplied with, of all tokens' products, in order."""
    found: dict[str, list[str]] = {}
    for node in _Quantizer(model, None, {}).products:
        if node.op_type == "MatMul":
            found.setdefault(node.input[0], []).append(node.input[1])
    return found


def channel_scales(values: np.ndarray, axis: int, levels: int) -> np.ndarray:
    """One for each place of `axis` of a matrix: the largest value there is `levels` of it."""
    return np.maximum(np.abs(values).max(axis=1 - axis) / levels, TINY).astype(np.float32)


class _Quantizer:
    def __init__(self, model: onnx.ModelProto, ranges: Ranges | None, rounded: Rounded) -> None:
        self.model, self.ranges, self.rounded = model, ranges, rounded
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        nodes = model.graph.node
        self.tables = {node.input[0] for node in nodes if node.op_type == "Gather" and self._is_matrix(node.input[0])}
        kept = _last_products(model)
        self.products = [
            node
            for node in nodes
            if node.op_type in ("MatMul", "Gemm")
            and self._is_matrix(node.input[1])
            and node.input[1] not in self.tables
            and node.name not in kept
        ]
        self.tied = {node.input[1] for node in nodes if node.op_type == "Gemm"} & self.tables
        self.added: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()

    def _is_matrix(self, name: str) -> bool:
        tensor = self.weights.get(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2

    def run(self) -> onnx.ModelProto:
        for name in sorted(self.tables):
            self._add_weight(
                name, self._array(name), axis=0, levels=PRODUCT_LEVELS if name in self.tied else ROW_LEVELS
            )
        products = {node.name for node in self.products}
        for node in self.model.graph.node:
            if node.op_type == "Gather" and node.input[0] in self.tables:
                self._lookup(node)
            elif node.op_type == "Gemm" and node.input[1] in self.tables:
                self._tied_projection(node)
            elif node.name in products:
                self._product(node)
            else:
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        added = [numpy_helper.from_array(np.array(value, order="C"), name) for name, value in self.added.items()]
        whole = self.model.graph
        graph = helper.make_graph(
            self.nodes,
            whole.name,
            whole.input,
            whole.output,
            [*kept, *added],
            value_info=whole.value_info,  # of the shapes in between, without which a session fuses no residual and norm
        )
        return helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
        )

    def _array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.weights[name])

    def _add_weight(self, name: str, values: np.ndarray, axis: int, levels: int) -> None:
        """`name`_int8 and `name`_scale (one for each place of `axis`)."""
        scale = channel_scales(values, axis, levels)
        nearest = np.rint(values / np.expand_dims(scale, 1 - axis)).astype(np.int8)
        self.added[f"{name}_int8"] = self.rounded.get(name, nearest)
        self.added[f"{name}_scale"] = scale

    def _node(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], f"{output}_node", domain=domain, **attributes))
        return output

    def _activation(self, name: str, ranges: Ranges | None) -> tuple[str, str, str]:
        """Quantized value, scale and zero point; once for all products that read it."""
        value, scale, zero = names = (f"{name}_uint8", f"{name}_scale", f"{name}_zero")
        if value not in self.made:
            self.made.add(value)
            if ranges is None:
                self.nodes.append(helper.make_node("DynamicQuantizeLinear", [name], names, name=f"{value}_node"))
            else:
                self.added[scale], self.added[zero] = _scale_and_zero(*ranges[name])
                self._node("QuantizeLinear", [name, scale, zero], value)
                self._node("DequantizeLinear", [value, scale, zero], f"{value}_read")
        return names

    def _unit(self, name: str) -> tuple[str, str]:
        """Every token divided by its largest magnitude, in 8 bits around 128, and those magnitudes, (..., 1)."""
        value, largest = names = (f"{name}_token_uint8", f"{name}_largest")
        if value not in self.made:
            self.made.add(value)
            self.added["last_axis"] = np.array([-1], dtype=np.int64)
            self.added["tiny"] = np.array(TINY, dtype=np.float32)
            self.added["token_scale"] = np.array(1 / TOKEN_LEVELS, dtype=np.float32)
            self.added["token_zero"] = np.array(128, dtype=np.uint8)
            magnitudes = self._node("Abs", [name], f"{name}_abs")
            found = self._node("ReduceMax", [magnitudes, "last_axis"], f"{largest}_or_zero", keepdims=1)
            self._node("Max", [found, "tiny"], largest)  # a token of zeros
            unit = self._node("Div", [name, largest], f"{name}_unit")
            self._node("QuantizeLinear", [unit, "token_scale", "token_zero"], value)
        return names

    def _product(self, node: onnx.NodeProto) -> None:
        (name, weight), output = node.input[:2], node.output[0]
        values = self._array(weight)
        bias = node.input[2:]  # none where it is zero
        product = f"{output}_product" if bias else output
        if node.op_type == "Gemm":  # torch's linear layer of a single row: (N, K)
            values = values.T
        self._add_weight(weight, values, axis=1, levels=PRODUCT_LEVELS)
        if node.op_type == "MatMul" and self.ranges is None:
            value, largest = self._unit(name)
            inputs = [value, f"{weight}_int8", "token_scale", f"{weight}_scale", "token_zero"]
            unit = self._node("MatMulIntegerToFloat", inputs, f"{product}_of_unit", domain="com.microsoft")
            self._node("Mul", [unit, largest], product)
            return
        # A Gemm has the first token alone, too little for static ranges to pay, and sessions fuse none with them.
        ranges = self.ranges if node.op_type == "MatMul" else None
        value, scale, zero = self._activation(name, ranges)
        if ranges is None:
            whole = self._node("MatMulInteger", [value, f"{weight}_int8", zero], f"{product}_int32")
            whole = self._node("Cast", [whole], f"{product}_whole", to=onnx.TensorProto.FLOAT)
            scales = self._node("Mul", [scale, f"{weight}_scale"], f"{product}_scales")
            self._node("Mul", [whole, scales], product)
        else:
            matrix = self._node("DequantizeLinear", [f"{weight}_int8", f"{weight}_scale"], f"{weight}_read", axis=1)
            self._node("MatMul", [f"{value}_read", matrix], product)
        if bias:
            self._node("Add", [product, *bias], output)

    def _lookup(self, node: onnx.NodeProto) -> None:
        """Rows of a table and their scales."""
        (table, rows), output = node.input, node.output[0]
        self.added["last_axis"] = np.array([-1], dtype=np.int64)
        whole = self._node("Gather", [f"{table}_int8", rows], f"{output}_int8")
        whole = self._node("Cast", [whole], f"{output}_whole", to=onnx.TensorProto.FLOAT)
        scales = self._node("Gather", [f"{table}_scale", rows], f"{output}_scale")
        scales = self._node("Unsqueeze", [scales, "last_axis"], f"{output}_scales")
        self._node("Mul", [whole, scales], output)

    def _tied_projection(self, node: onnx.NodeProto) -> None:
        """Reads the embedding's table (V, H) as it lies. Its input is quantized dynamically in either case."""
        (name, table, *bias), output = node.input, node.output[0]
        value, scale, zero = self._activation(name, None)
        self.added[f"{table}_zeros"] = np.zeros(len(self.added[f"{table}_scale"]), dtype=np.int8)
        product = f"{output}_product" if bias else output
        inputs = [value, scale, zero, f"{table}_int8", f"{table}_scale", f"{table}_zeros"]
        self._node("QGemm", inputs, product, domain="com.microsoft", transB=1)
        if bias:
            self._node("Add", [product, *bias], output)


def _scale_and_zero(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = min(low, 0.0), max(high, 0.0)  # zero has to be exact
    scale = max((high - low) / 255, TINY)
    return np.array(scale, dtype=np.float32), np.array(round(-low / scale), dtype=np.uint8)


def _last_products(model: onnx.ModelProto) -> set[str]:
    """Names of the products that the outputs come from with no other between."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found, todo = set(), [output.name for output in model.graph.output]
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node.op_type in ("MatMul", "Gemm"):
            found.add(node.name)
        elif node is not None:
            todo += node.input
    return found
