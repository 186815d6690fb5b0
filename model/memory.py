"""How many bytes a model needs for one micro-batch: what autograd keeps, and what the losses work in.

Counted per operation by hand and checked against what autograd really saves (tests/model/test_memory.py).
Shapes: T rows of a micro-batch (real tokens, or sequences x longest where attention is padded), H width, F inner width,
A heads, V padded vocabulary.
"""

from model.config import EncoderConfig
from model.kernels.choice import Kernels
from model.kernels.native.vocab_loss import WORKSPACE_BYTES
from model.kernels.vocab_loss import CHUNK_TOKENS

PADDED = ("sdpa", "softmax")
"""Attention backends that see sequences x longest rows."""
FP32 = 4


def activation_bytes(config: EncoderConfig, kernels: Kernels, *, rows: int, longest: int, width: int) -> int:
    """What autograd saves in a forward pass; `width` bytes of an element (bf16: 2), `longest` sequence in tokens."""
    h, f, heads = config.hidden_size, config.intermediate_size, config.num_heads
    # Inputs of qkv, out-projection and feed-forward, qkv itself, both norms; between the feed-forward's layers one or two.
    layer = width * (8 * h + (1 if kernels.linear == "native" else 2) * f) + FP32 * heads
    if config.hidden_dropout and kernels.layer_norm not in ("native", "triton"):
        layer += 2 * h  # a byte of each dropout's mask
    if kernels.attention == "softmax":
        layer += heads * longest * (3 * width + (1 if config.attention_dropout else 0))
    embeddings = (width + 1) * h
    head = 3 * width * h
    return rows * (config.num_layers * layer + embeddings + head)


def backward_bytes(config: EncoderConfig, *, rows: int, width: int) -> int:
    """Gradients inside one layer while it is differentiated: of both sides of the feed-forward, and of qkv."""
    return rows * width * (2 * config.intermediate_size + 4 * config.hidden_size)


def loss_bytes(
    config: EncoderConfig, kernel: str, *, tokens: int, predicted: int, width: int, device: str, has_teacher: bool
) -> int:
    """What vocabulary and cosine loss work in, their fp32 gradients included. `predicted` tokens meet the vocabulary."""
    vocabulary, h = config.padded_vocab_size, config.hidden_size
    sides = 2 if has_teacher else 1
    gradients = FP32 * vocabulary * h + FP32 * predicted * h
    if kernel == "native":
        working = int(min(WORKSPACE_BYTES, FP32 * sides * predicted * vocabulary))
        working += sides * width * vocabulary * h  # the weights, packed in tiles
    else:
        chunk = min(predicted, CHUNK_TOKENS[device])
        fp32_tensors = {"triton": sides}.get(kernel, 2 * sides)  # logits; torch: their logarithms as well
        working = chunk * vocabulary * (FP32 * fp32_tensors + width)
        if device == "cpu" and width < FP32:
            working += sides * FP32 * vocabulary * h  # CPU products have no mixed result type: the weights in fp32
    cosine = 4 * FP32 * tokens * h if has_teacher else 0
    return gradients + working + cosine


def teacher_output_bytes(config: EncoderConfig, *, tokens: int, width: int) -> int:
    """Hidden states and features, which wait for the loss."""
    return 2 * tokens * config.hidden_size * width
