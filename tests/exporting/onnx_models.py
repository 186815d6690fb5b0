"""Small students as fp32 ONNX, each exported once for all tests: an export takes more than a second."""

import collections
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers

from exporting.onnx_graph import export_graph
from exporting.plain import PRUNED_HEADS, PlainModel, plain_model
from exporting.variant import Batch, Outputs
from tests.exporting.test_plain import make

MLM, CLASSES, SPAN = (
    transformers.AutoModelForMaskedLM,
    transformers.AutoModelForSequenceClassification,
    transformers.AutoModelForQuestionAnswering,
)
LONGEST, VOCABULARY, WIDTH = 24, 97, 32
"""Of test_plain's models."""


@cache
def exported(family: str, head: type, opset: int = 20) -> tuple[PlainModel, onnx.ModelProto]:
    """Not to be changed."""
    plain = plain_model(make(family, head))
    return plain, export_graph(plain, opset)


@cache
def pruned() -> tuple[PlainModel, onnx.ModelProto]:
    """Two heads in one layer, three in the other; by the highest opset."""
    model = make("distilbert", CLASSES)
    setattr(model.config, PRUNED_HEADS, {"0": [1, 3], "1": [0]})
    plain = plain_model(model)
    return plain, export_graph(plain, 23)


@cache
def larger() -> tuple[PlainModel, onnx.ModelProto]:
    """A masked LM most of whose bytes are weights, as a real one's are."""
    torch.manual_seed(4)
    config = transformers.DistilBertConfig(
        vocab_size=1500, dim=96, n_heads=4, n_layers=2, hidden_dim=192, max_position_embeddings=64
    )
    model = MLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some channels larger than others, as trained ones are
            parameter.mul_(1 + 2 * torch.rand(parameter.shape[:1]).view(-1, *[1] * (parameter.ndim - 1)))
            parameter.add_(0.02 * torch.randn_like(parameter))
    plain = plain_model(model)
    return plain, export_graph(plain, 20)


def batch_of(plain: PlainModel, *wanted: int) -> Batch:
    """Random tokens, padded on the right; no longer than the model has positions."""
    lengths = [min(length, plain.shape.num_positions) for length in wanted]
    draw = np.random.default_rng(len(lengths) + lengths[0])
    shape, columns = (len(lengths), max(lengths)), np.arange(max(lengths))
    mask = (columns < np.array(lengths)[:, None]).astype(np.int64)
    ids = draw.integers(4, plain.encoder.word.num_embeddings, shape)
    types = np.broadcast_to(columns > 2, shape).astype(np.int64)
    return {
        name: {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}[name]
        for name in plain.input_names
    }


@torch.no_grad()
def expected(plain: PlainModel, batch: Batch) -> Outputs:
    return tuple(value.numpy() for value in plain(*(torch.from_numpy(batch[name]) for name in plain.input_names)))


def run(model: onnx.ModelProto, batch: Batch) -> Outputs:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return tuple(session.run(None, dict(batch)))


def counts(model: onnx.ModelProto) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph.node)


def in_session(model: onnx.ModelProto) -> collections.Counter[str]:
    """The nodes that onnxruntime executes: after its own fusions."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return counts(onnx.load(options.optimized_model_filepath))


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
