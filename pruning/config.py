"""The flags of prune.py. Nothing here imports torch, so that --help answers at once."""

import math
from dataclasses import dataclass

from evaluation.tasks import task_named


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """What to take from a model, and what to measure it on."""

    model: str
    """Folder or hub id: a masked language model, or one that finetune.py left in OUTPUT/TASK/model."""
    output: str
    """Folder of the smaller model, with pruning.json and PRUNING.md; what an earlier pruning left there is replaced."""
    data: str
    """What is measured, before and after. Masked language model: prefix of a prepared held-out corpus. Fine-tuned model:
    where its task's data is, as for finetune.py."""
    task: str = ""
    """Of a fine-tuned model. Default: what result.json beside its folder says, or its own pruning.json."""
    train_data: str = ""
    """Where the task's training examples are, if elsewhere."""
    prune_heads: float = 0.0
    """Share of all attention heads that is gone afterwards: the least important ones, but never a layer's last."""
    sweep: tuple[float, ...] = ()
    """Shares of heads to try as well, for example 0 0.25 0.5 0.75: the figures without any of it being kept."""
    layers: tuple[int, ...] = ()
    """Layers that stay, counted from 0, for example 0 2 4. Default: all."""
    trim_vocab: tuple[str, ...] = ()
    """Prepared corpora of this tokenizer, or files of text as data.prepare reads them: tokens that do not occur in them
    are taken from the vocabulary. Special tokens and single characters stay."""
    vocab_size: int = 0
    """With --trim_vocab: of the tokens that occur only the most frequent, so many in all. 0: every one."""
    examples: int = 512
    """Training examples, or sequences of --data that are not measured, from which importance is taken; 0: all."""
    eval_examples: int = 0
    """Measure on so many examples, spread over the split, or sequences. 0: all of a task, 512 sequences of a corpus."""
    max_length: int = 0
    """Longest input in tokens. Default: as it was fine-tuned, 128 for a masked language model."""
    sentences: int = 64
    """Inputs of the data to take latency on, at batch 1 on one thread; 0: none is taken."""
    rounds: int = 5
    """Times that both models pass over them."""

    def __post_init__(self) -> None:
        if self.task:
            task_named(self.task)
        if not (self.prune_heads or self.sweep or self.layers or self.trim_vocab):
            raise ValueError(
                "nothing to prune: give --prune_heads SHARE, --layers NUMBERS, --trim_vocab TEXT or --sweep"
            )
        for flag, share in (("prune_heads", self.prune_heads), *(("sweep", share) for share in self.sweep)):
            if not (math.isfinite(share) and 0 <= share < 1):
                raise ValueError(f"--{flag} {share:g}: a share of the heads, at least 0 and below 1, for example 0.5")
        if list(self.layers) != sorted(set(self.layers)) or min(self.layers, default=0) < 0:
            raise ValueError(f"--layers {' '.join(map(str, self.layers))}: give layers in ascending order, each once")
        for name in ("vocab_size", "examples", "eval_examples", "max_length", "sentences"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: 0 for the default, or a positive number")
        if self.vocab_size and not self.trim_vocab:
            raise ValueError(f"--vocab_size {self.vocab_size}: --trim_vocab TEXT has to say which tokens are frequent")
        if self.rounds < 1:
            raise ValueError(f"--rounds {self.rounds}: at least 1 is needed")
