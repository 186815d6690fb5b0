"""PlainModel -> one ONNX file in fp32, dynamic in batch and length.

Attention is one com.microsoft.MultiHeadAttention a layer, which onnxruntime's CPU, WebAssembly, WebGPU and CUDA providers
have; everything else is in ONNX's own operators, which a session fuses further when it opens the file (residual + norm,
bias + GELU). The vocabulary projection reads the word embedding, which is in the file once.
Shapes: B inputs, L tokens, H width, V vocabulary.
"""

import collections
import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.ops import symbolic

from exporting.plain import PlainModel, WordHead

OPSETS = range(20, 24)
"""GELU is an operator from 20 on, and torch's exporter knows none above 23; onnxruntime reads all of them."""
LARGEST_FILE = 2_000_000_000
"""Protocol buffers end at 2 GiB."""
UNFUSED = ("Softmax", "Erf", "Sqrt", "ReduceMean", "Pow")
"""Operators that attention, GELU or norms fall apart into where an exporter does not know them."""


def export_graph(plain: PlainModel, opset: int) -> onnx.ModelProto:
    """The model with weights, without traces of where it was made: the same bytes from the same weights.

    Errors: ValueError for an opset outside `OPSETS`, for weights above `LARGEST_FILE`, or where something was not fused.
    """
    check_opset(opset)
    num_bytes = sum(parameter.nbytes for parameter in plain.parameters())
    if num_bytes > LARGEST_FILE:
        raise ValueError(
            f"weights of {num_bytes:,} bytes: an .onnx file holds {LARGEST_FILE:,}. Export a smaller student"
        )
    head = TiedHead(plain.head) if isinstance(plain.head, WordHead) else plain.head
    graph = PlainModel(plain.encoder, head, plain.shape, fused_attention).eval()
    # one tensor each: inputs that are the same object become the same input of the file
    examples = tuple(torch.ones((2, min(8, plain.shape.num_positions)), dtype=torch.int64) for _ in plain.input_names)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            examples,
            input_names=list(plain.input_names),
            output_names=list(plain.output_names),
            opset_version=opset,
            dynamic_shapes=({0: batch, 1: length},) * len(examples),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = _without_traces(program.model_proto)
    check_nodes(model, plain)
    return model


def check_opset(opset: int) -> None:
    if opset not in OPSETS:
        raise ValueError(
            f"--opset {opset}: torch {torch.__version__} exports these models in opsets {OPSETS[0]} to {OPSETS[-1]} of ONNX"
        )


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """`Attention` as one node of the file. (B, L, A * D), (B, L) -> (B, L, A * D)."""
    return symbolic(
        "com.microsoft::MultiHeadAttention",
        (query, key, value, None, mask.to(torch.int32)),
        {"num_heads": num_heads},
        dtype=query.dtype,
        shape=query.shape,
        version=1,
    )


class TiedHead(nn.Module):
    """`WordHead` whose projection is a Gemm that reads the word embedding as it lies: a transposed one would be a copy."""

    output_names = WordHead.output_names

    def __init__(self, head: WordHead) -> None:
        super().__init__()
        self.transform, self.norm, self.decoder = head.transform, head.norm, head.decoder

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        features = self.norm(F.gelu(self.transform(hidden))).flatten(0, 1)  # (B * L, H)
        weight = self.decoder.weight
        logits = symbolic(
            "Gemm",
            (features, weight, self.decoder.bias),
            {"transB": 1},
            dtype=features.dtype,
            shape=(features.shape[0], weight.shape[0]),
        )
        return (logits.unflatten(0, hidden.shape[:2]),)  # (B, L, V)


def check_nodes(model: onnx.ModelProto, plain: PlainModel) -> None:
    """What is fused is there as often as the model has it, and what it would fall apart into is not.

    Errors: ValueError with the numbers.
    """
    num_layers, is_word_head = len(plain.encoder.layers), isinstance(plain.head, WordHead)
    expected = {
        "MultiHeadAttention": num_layers,
        "LayerNormalization": 1 + 2 * num_layers + is_word_head,
        "Gelu": num_layers + is_word_head,
        **dict.fromkeys(UNFUSED, 0),
    }
    found = collections.Counter(node.op_type for node in model.graph.node)
    wrong = [f"{found[name]} {name} instead of {count}" for name, count in expected.items() if found[name] != count]
    tables = [
        x
        for x in model.graph.initializer
        if list(x.dims) in (shape := list(plain.encoder.word.weight.shape), shape[::-1])
    ]
    if len(tables) != 1:
        wrong.append(f"the word embedding {len(tables)} times")
    if wrong:
        raise ValueError(f"torch {torch.__version__} exports another graph than expected: {', '.join(wrong)}")


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter notes the source lines, with their folders, behind every node and weight."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    model.producer_name, model.producer_version = "distillery", ""
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not installed and names that it does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
