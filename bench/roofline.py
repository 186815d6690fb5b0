"""What each part of an update needs at least, in floating-point operations and in bytes, beside what it took.

Bytes are those that no implementation can avoid once the operations are fused as ours are: every weight, activation,
gradient and optimizer state is moved between memory and the cores once per use; nothing of (tokens x vocabulary) is.
The bound is the longer of operations over the matrix-product peak and bytes over the copy bandwidth.

T tokens, H width, F inner width, V vocabulary, L layers; 2 bytes an element unless stated otherwise.
"""

from typing import NamedTuple

from bench.workload import Workload
from model.config import EncoderConfig

OPTIMIZER_BYTES = 4 + 3 * 8 + 2
"""A parameter: its gradient read, master and both moments read and written in fp32, the 16-bit weight written."""


class Need(NamedTuple):
    flops: float
    bytes: float

    def seconds(self, gemm_peak: float, bandwidth: float) -> float:
        return max(self.flops / gemm_peak, self.bytes / bandwidth)


def needs(workload: Workload) -> dict[str, Need]:
    """Of each part of an update; the vocabulary projection and its gradients belong to the loss."""
    tokens, pairs = workload.num_tokens, workload.num_tokens * workload.length
    student, teacher = workload.student, workload.teacher
    student_forward = _forward(student, tokens, pairs)
    projection = 2.0 * tokens * student.hidden_size * student.padded_vocab_size
    return {
        "teacher": _forward(teacher, tokens, pairs),
        "student": student_forward,
        "loss": Need(4 * projection, _loss_bytes(student, tokens) + _loss_bytes(teacher, tokens)),
        "backward": Need(2 * student_forward.flops, 2 * student_forward.bytes),
        "optimizer": Need(0.0, OPTIMIZER_BYTES * student.num_parameters),
    }


def _forward(config: EncoderConfig, tokens: int, pairs: int) -> Need:
    """The encoder and the head's transform."""
    h, f = config.hidden_size, config.intermediate_size
    weights = config.num_layers * (4 * h * h + 2 * h * f) + h * h
    # A layer reads and writes: qkv 1 + 3, attention 3 + 1, output 1 + 1, norm 2 + 1, ffn H + F and F + H, norm 2 + 1.
    activations = config.num_layers * tokens * (18 * h + 2 * f) + 4 * tokens * h
    flops = config.encoder_flops(tokens, pairs) + 2 * tokens * h * h
    return Need(flops, 2.0 * (weights + activations))


def _loss_bytes(config: EncoderConfig, tokens: int) -> float:
    """W read once, dW written once in fp32 (the teacher's half has neither dW nor d(features): counted for simplicity)."""
    return config.padded_vocab_size * config.hidden_size * (2.0 + 2.0) + tokens * config.hidden_size * 4.0


def roofline_rows(
    workload: Workload, seconds: dict[str, float], gemm_peak: float, bandwidth: float
) -> list[tuple[str, ...]]:
    """part, GFLOP, GB, least seconds, seconds taken, GFLOP/s, share of the bound."""
    rows: list[tuple[str, ...]] = []
    for part, need in needs(workload).items():
        bound = need.seconds(gemm_peak, bandwidth)
        rows.append(
            (
                f"{workload.sequences} x {workload.length}",
                part,
                f"{need.flops / 1e9:,.0f}",
                f"{need.bytes / 1e9:.2f}",
                f"{bound:.3f}",
                f"{seconds[part]:.3f}",
                f"{need.flops / seconds[part] / 1e9:,.0f}",
                f"{bound / seconds[part]:.0%}",
            )
        )
    return rows
