"""What a model is and what it is trained for, as plain values: nothing here imports torch, so `--help` stays instant."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are padded to a multiple of this: unaligned vocabularies fall off the fast GEMM kernels."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of one BERT-like encoder. Token types are folded into positions, so none appear here."""

    vocab_size: int
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    layer_norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: an encoder needs at least 1")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} is no multiple of num_heads = {self.num_heads}: "
                "every head needs the same width"
            )

    @property
    def padded_vocab_size(self) -> int:
        return math.ceil(self.vocab_size / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def num_parameters(self) -> int:
        """Weights of encoder and masked-LM head as they are published: tied decoder counted once, no row padding."""
        h, f = self.hidden_size, self.intermediate_size
        embeddings = (self.vocab_size + self.max_positions + 2) * h  # 2: scale and shift of the norm
        layer = 4 * (h * h + h) + (h * f + f) + (f * h + h) + 4 * h
        head = h * h + 3 * h + self.vocab_size
        return embeddings + self.num_layers * layer + head

    def encoder_flops(self, num_tokens: int, attended_pairs: int) -> float:
        """Floating-point operations of one forward pass over real tokens.

        Per layer 2 * (4 H^2 + 2 H F) a token for the linear maps, and 4 H for each of the `attended_pairs` (query, key),
        the sum over sequences of their squared lengths.
        """
        h, f = self.hidden_size, self.intermediate_size
        return self.num_layers * (num_tokens * 2 * (4 * h * h + 2 * h * f) + attended_pairs * 4 * h)

    def head_flops(self, num_tokens: int) -> float:
        """The same for the masked-LM head: its transform and the vocabulary projection."""
        return num_tokens * 2 * self.hidden_size * (self.hidden_size + self.vocab_size)


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Where the weights come from."""

    teacher: str = "bert-base-uncased"
    """Masked language model to learn from, BERT, DistilBERT, RoBERTa or XLM-R: a local folder or a Hugging Face hub id."""
    teacher_dtype: Literal["auto", "fp16", "bf16", "fp32", "fp8"] = "auto"
    """Precision of the frozen teacher. auto: fp16 on CUDA, bf16 on CPUs that have it, else fp32.
    fp8: the layers' matrix products in 8 bit, the rest in bf16 (compute capability 8.9; correct but slow on a CPU)."""
    teacher_max_drift: float = 0.02
    """With --teacher_dtype fp8: the largest distillation loss against its own 16-bit version, measured before update 1, at
    which a teacher is accepted. Students end at 0.1 to 0.3 (measured); a real 6-layer teacher drifts by 0.005."""
    check_teacher: bool = True
    """Score the teacher before update 1, on --eval_data where given, and refuse one that word frequencies beat."""
    student_layers: str = ""
    """Teacher layers to copy, counted from 0, for example 0,2,4,7,9,11.
    Default: half of them, spread evenly from first to last (12 -> 0,2,4,7,9,11; 6 -> 0,2,5; 4 -> 0,3)."""
    student_init: Literal["teacher", "random"] = "teacher"
    """Initial weights of the student: the teacher's chosen layers, or random ones of the same shape (an ablation)."""
    architecture: str = ""
    """A config.json of one of these. With --objective mlm: train this model from random weights, without any teacher."""
    dropout: float = 0.1
    """Dropout of the student, hidden and attention. The teacher has none: it is frozen."""
    attention: Literal["auto", "varlen", "native", "blocked", "sdpa", "softmax"] = "auto"
    """Attention backend. auto: the packed one that the device has, or sdpa. varlen: packed, flash attention (GPU).
    native, blocked: packed, C++ and cache-sized blocks (CPU). sdpa: padded, PyTorch's own. softmax: padded, spelled out."""
    kernels: Literal["auto", "native", "triton", "apex", "torch"] = "auto"
    """Linear layers (CPU), fused layer norm, GELU, softmax and vocabulary loss. auto: the fastest that the device has.
    native: C++, compiled at first use (CPU). triton, apex: GPU. torch: plain operations."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"--dropout {self.dropout}: a probability below 1 is needed, for example 0.1")
        _ = self.layer_choice  # refuses a malformed list before anything heavy starts

    @property
    def layer_choice(self) -> tuple[int, ...]:
        """`--student_layers` as numbers; empty where the default rule decides."""
        try:
            return tuple(int(part) for part in self.student_layers.replace(",", " ").split())
        except ValueError:
            raise ValueError(
                f"--student_layers {self.student_layers!r}: expected layer numbers separated by commas, "
                "for example 0,2,4,7,9,11"
            ) from None


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What an update minimises."""

    objective: Literal["distil", "mlm"] = "distil"
    """distil: the triple loss against the teacher.
    mlm: masked-LM cross entropy alone (pre-training a teacher, or the baseline without distillation)."""
    temperature: float = 2.0
    """Softens both distributions of the distillation loss, which is scaled by its square (Hinton et al. 2015)."""
    distil_on: Literal["all", "masked"] = "all"
    """Positions that the distillation loss is summed and averaged over. all: the attended ones, as published.
    masked: the masked ones alone; another objective, with about a seventh of the vocabulary projection's work."""
    weight_distillation: float = 5.0
    """Weight of the KL divergence from the teacher's softened predictions, over the positions of --distil_on."""
    weight_mlm: float = 2.0
    """Weight of the masked-LM cross entropy, over masked positions."""
    weight_cosine: float = 1.0
    """Weight of 1 - cos between the last hidden states of student and teacher, over all attended positions."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"--temperature {self.temperature}: must be above 0 (the published model used 2)")
        weights = (self.weight_distillation, self.weight_mlm, self.weight_cosine)
        if min(weights) < 0 or not any(weights):
            raise ValueError(
                f"--weight_distillation {weights[0]} --weight_mlm {weights[1]} --weight_cosine {weights[2]}: "
                "weights must not be negative and at least one must be above 0"
            )

    @property
    def predicts_masked_only(self) -> bool:
        """Whether no loss reads the predictions at other positions than the masked ones."""
        return self.objective == "mlm" or self.distil_on == "masked"


def read_json(path: Path) -> dict:
    """A JSON object from a file; `ValueError` names file, line and column where it is malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content
