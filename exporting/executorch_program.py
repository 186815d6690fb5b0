"""A plain model -> one of ExecuTorch's programs, with all heavy operations in XNNPACK: fp32, or 8 bit.

The program takes one input of any length up to a bound.
int8: weights of linear layers by output channel, their inputs as they come, by token (XNNPACK does that itself);
embeddings by row. Softmax, GELU, norms and attention's products stay in fp32.
Shapes: L tokens, H width, V rows of a table.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporting.executorch_file import share_tensors
from exporting.executorch_runtime import INSTALL, quiet
from exporting.plain import PlainModel
from exporting.single_input import SingleInput

HEAVY = ("linear", "mm", "bmm", "addmm", "matmul", "convolution", "_softmax", "gelu", "tanh", "relu")
"""Operations that have to be XNNPACK's: by portable kernels they take many times as long."""
EXAMPLE_LENGTH = 16
"""Of the input that is traced. 1 would be taken for a constant."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is written into a .pte, and where its operations run."""

    data: bytes
    num_delegates: int
    """Parts of the graph that XNNPACK has."""
    delegated: Mapping[str, int]
    """Operation -> how often it runs in XNNPACK, without the steps from fp32 to 8 bit and back."""
    portable: Mapping[str, int]
    """Operation -> how often it runs in ExecuTorch's own kernels."""


def make_program(plain: PlainModel, max_length: int, int8: bool) -> Program:
    """Errors: ValueError where the installed ExecuTorch leaves a heavy operation out of XNNPACK."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(_trace(plain, max_length, int8), partitioner=[XnnpackPartitioner()])
        num_delegates, delegated, portable = _where(edge.exported_program().graph_module)
        if left := sorted(set(portable) & set(HEAVY)):
            raise ValueError(
                f"this ExecuTorch keeps {', '.join(left)} out of XNNPACK. The one that does not: {INSTALL}"
            )
        data = share_tensors(edge.to_executorch().buffer)
    return Program(data=data, num_delegates=num_delegates, delegated=delegated, portable=portable)


def _trace(plain: PlainModel, max_length: int, int8: bool) -> torch.export.ExportedProgram:
    model: nn.Module = SingleInput(plain)
    example = tuple(torch.ones(1, min(EXAMPLE_LENGTH, max_length), dtype=torch.int64) for _ in plain.input_names)
    length = torch.export.Dim("length", min=1, max=max_length)
    shapes = tuple({1: length} for _ in example)
    if int8:
        _quantize_embeddings(model.encoder)
        model = _quantize_linear(torch.export.export(model, example, dynamic_shapes=shapes).module(), example)
    return torch.export.export(model, example, dynamic_shapes=shapes)


class ByteEmbedding(nn.Module):
    """An embedding in 8 bit, each row with its scale, in operations that every build of ExecuTorch has.

    Rounded as the weights of linear layers are: a tied vocabulary projection is the same bytes.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        from torchao.quantization.pt2e import PerChannelMinMaxObserver

        weight = embedding.weight.detach()  # (V, H)
        largest = {"quant_min": -127, "quant_max": 127, "dtype": torch.int8}
        observer = PerChannelMinMaxObserver(ch_axis=0, qscheme=torch.per_channel_symmetric, eps=2**-12, **largest)
        observer(weight)
        scale, zero = observer.calculate_qparams()
        rows = torch.ops.quantized_decomposed.quantize_per_channel(weight, scale, zero, 0, *largest.values())
        self.register_buffer("table", rows)
        self.register_buffer("scale", scale.float()[:, None])  # (V, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table).to(torch.float32) * F.embedding(ids, self.scale)


def _quantize_embeddings(encoder: nn.Module) -> None:
    for name, child in list(encoder.named_children()):
        if isinstance(child, nn.Embedding):
            setattr(encoder, name, ByteEmbedding(child))


def _quantize_linear(graph: torch.fx.GraphModule, example: tuple[Tensor, ...]) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(graph, quantizer)
    prepared(*example)  # shows the weights to their observers; inputs are quantized as they come
    return convert_pt2e(prepared)


def _where(graph: Any) -> tuple[int, Counter[str], Counter[str]]:
    """Number of XNNPACK's parts, the operations in them, all others."""
    delegated: Counter[str] = Counter()
    num_delegates = 0
    for node in graph.graph.nodes:
        if node.target is torch.ops.higher_order.executorch_call_delegate:
            num_delegates += 1
            part = getattr(graph, node.args[0].target)
            assert part.backend_id == "XnnpackBackend", part.backend_id
            delegated += _operations(part.original_module.graph_module)
    return num_delegates, delegated, _operations(graph)


def _operations(graph: Any) -> Counter[str]:
    """Without what computes nothing: aten.linear.default is a linear."""
    found: Counter[str] = Counter()
    for node in graph.graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            name = node.target._schema.name.split("::")[1]
            if "quantize" not in name and "qparams" not in name and name != "sym_size":
                found[name] += 1
    return found
