"""What `bench.kernels` measures: sizes, cases and the figures of one. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Shapes of one micro-batch."""

    tokens: int
    length: int
    """Of a sequence; the softmax is over this many keys."""
    hidden: int
    inner: int
    heads: int
    vocab: int
    repetitions: int


SIZES = {
    "base": Size(tokens=32768, length=512, hidden=768, inner=3072, heads=12, vocab=30522, repetitions=20),
    "small": Size(tokens=1024, length=256, hidden=768, inner=3072, heads=12, vocab=30522, repetitions=3),
    "tiny": Size(tokens=48, length=24, hidden=32, inner=64, heads=2, vocab=500, repetitions=2),
}
"""base: 64 sequences of BERT-base, for GPUs. small: the same widths, for CPUs. tiny: a quick look."""

OPERATIONS = ("vocab_loss", "logits", "layer_norm", "activation", "softmax")
"""logits: what the vocabulary loss does between its matrix products, one chunk, where a kernel of its own does it."""
BYTES_AN_ELEMENT = {"layer_norm": 16, "activation": 10, "softmax": 10, "logits": 10}
"""What a fused operation has to move in forward and backward, 2 bytes a value: layer norm reads hidden and residual and
writes one, then reads those and a gradient and writes two; activation and softmax read and write one, then read two and
write one; logits reads two fp32 values and writes one of 2 bytes."""
CHUNK_TOKENS = {"cuda": (1024, 2048, 4096, 8192), "cpu": (128, 256, 512)}
LOGITS_TOKENS = 2048
"""Rows of the chunk of `logits`."""
LOGITS_TILES = ((1024, 4), (2048, 8), (2048, 16), (4096, 16), (8192, 32))
"""Columns of a step and warps of a program to try besides what the kernel chooses."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One implementation of one operation."""

    operation: str
    implementation: str
    """torch, eager, compile, liger, or what model/kernels/choice.py knows."""
    tokens: int
    vocab: int
    size: str
    chunk_tokens: int = 0
    """Of the vocabulary loss; 0: as it chooses itself."""
    tile: tuple[int, int] = (0, 0)
    """Of `logits`, one of LOGITS_TILES; 0: as the kernel chooses itself."""

    @property
    def shape(self) -> Size:
        return SIZES[self.size]

    @property
    def elements(self) -> int:
        """Of the operation's output."""
        shape = self.shape
        if self.operation == "logits":
            return min(self.tokens, LOGITS_TOKENS) * self.vocab
        widths = {"layer_norm": shape.hidden, "activation": shape.inner, "softmax": shape.heads * shape.length}
        return self.tokens * widths[self.operation]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a case took, forward and backward together."""

    seconds: float
    """The shortest of the repetitions, after a warm-up."""
    peak_bytes: int
    """The most memory at once, beyond inputs, weights and gradients."""
    features_error: float | None = None
    weight_error: float | None = None
    """Of the gradient against float64, student near its teacher; of the vocabulary loss alone."""
    failure: str = ""
