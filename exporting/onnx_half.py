"""ONNX in fp32 -> in fp16: half the bytes. Inputs stay int64, outputs fp32; norms and softmax are computed in fp32."""

import warnings

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

IN_FP32 = ("LayerNormalization",)
"""A sum over the width in fp16 loses bits where a channel is large, as some of BERT's are."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A new file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line for every weight near zero that rounds to fp16's smallest
        return convert_float_to_float16(copy, keep_io_types=True, op_block_list=list(IN_FP32))
