"""The one update that every side of `bench.step` performs: its shapes, its recipe and its FLOPs.

Nothing here imports torch: the parent process stays small (see `bench.step`).
"""

import dataclasses
from dataclasses import dataclass

from model.config import EncoderConfig

VOCAB_SIZE = 30522
SIZES = {
    "base": EncoderConfig(vocab_size=VOCAB_SIZE),
    "small": EncoderConfig(vocab_size=VOCAB_SIZE, hidden_size=512, num_layers=4, num_heads=8, intermediate_size=2048),
    "tiny": EncoderConfig(vocab_size=VOCAB_SIZE, hidden_size=128, num_layers=2, num_heads=2, intermediate_size=512),
}
"""Teachers by name: BERT-base, and Google's BERT-small and BERT-tiny for a quick look."""

VARIANTS = {
    "ours": "distillery",
    "ours_torch": "distillery, torch kernels",
    "zero1": "distillery, ZeRO-1",
    "zero2": "distillery, ZeRO-2",
    "hf_fp32": "Hugging Face fp32",
    "hf_autocast": "Hugging Face autocast bf16",
    "hf_compiled": "Hugging Face autocast bf16, compiled",
}
"""Sides in the order of a round -> their names in the table."""

DEFAULT_VARIANTS = ("ours", "hf_fp32", "hf_autocast")
"""What a user would compare first. Compilation takes minutes on a CPU, engines matter with accumulation."""

MULTI_RANK_VARIANTS = ("ours", "zero1", "zero2")
"""Those that can share an update between ranks."""

STAGES = {"zero1": 1, "zero2": 2}
"""Variants under DeepSpeed's engine, the way train.py starts it -> their ZeRO stage."""

KERNELS = {"ours_torch": "torch"}
"""Variant -> value of --kernels where it is not auto; read in one place, bench/step_ours.py."""

PARTS = ("teacher", "student", "loss", "backward", "optimizer")
"""What an update spends its time on, in order."""

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, MAX_GRAD_NORM = 5e-4, (0.9, 0.98), 1e-6, 0.01, 5.0
"""The recipe of ds_configs/, the same for every side."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one process measures: `updates` updates of one variant on one batch of full-length sequences."""

    variant: str
    size: str
    length: int
    """Tokens of every sequence: nothing is padded, so that all sides do the same work."""
    sequences: int
    updates: int
    """Timed ones; those for warm-up precede them."""
    micro_batches: int = 1
    """Of one rank, all of `sequences`, whose gradients add up to an update."""
    ranks: int = 1
    vocab_size: int = VOCAB_SIZE

    @property
    def teacher(self) -> EncoderConfig:
        return dataclasses.replace(SIZES[self.size], vocab_size=self.vocab_size)

    @property
    def student(self) -> EncoderConfig:
        return dataclasses.replace(self.teacher, num_layers=self.teacher.num_layers // 2)

    @property
    def num_tokens(self) -> int:
        """Of an update: of all ranks and micro-batches."""
        return self.ranks * self.micro_batches * self.sequences * self.length

    @property
    def masked_per_sequence(self) -> int:
        return max(1, round(0.15 * self.length))

    @property
    def flops(self) -> float:
        """Of one update: student forward and backward (3x forward), teacher forward, both with their heads."""
        tokens, pairs = self.num_tokens, self.num_tokens * self.length
        student = self.student.encoder_flops(tokens, pairs) + self.student.head_flops(tokens)
        return 3 * student + self.teacher.encoder_flops(tokens, pairs) + self.teacher.head_flops(tokens)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one process found, as it travels to the parent."""

    seconds: list[float]
    """Of each timed update."""
    parts: dict[str, list[float]]
    """The same, by part of the update."""
    peak_bytes: int
    baseline_bytes: int
    """Memory after the imports and before any model was built."""
    gemm_peak: float
    """FLOP/s of a large bf16 product in this process."""
    copy_bandwidth: float
    """Bytes/s read and written by a copy of half a gigabyte, in this process."""
    preemptions_per_second: float
    """Of all threads of this process during the timed updates: another program wanted the cores."""
    loss: float
    """Of the last update: proof that it did something finite."""
    num_threads: int
    device: str
    setup: str
    """What the side chose: precision and attention."""
