"""One student of an ablation on held-out text, against its teacher: a process of its own, which gives its memory back.

Every student reads the same sequences with the same masks, and the temperature is not the one that it was distilled with.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Whom to score, on what, and how."""

    teacher: str
    """Folder or hub id."""
    student: str
    """Folder."""
    data: str
    """Prefix of a prepared held-out corpus."""
    output: str
    """JSON file for the figures."""
    sequences: int
    """Sequences to score, spread evenly over the corpus."""
    max_length: int
    """Longest sequence in tokens."""
    mask_probability: float
    """Share of a sequence's tokens to predict."""
    mask_smoothing: float
    """As in training: 0 masks uniformly, above 0 rare tokens more often."""
    temperature: float
    """Of the KL divergence."""


SEQUENCES_PER_BATCH = 16


def main(config: ScoreConfig) -> int:
    import torch

    from data.batching import Corpus, fixed_batches
    from evaluation.compare import load
    from evaluation.heldout import evaluate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        corpus = Corpus.open(config.data, max_length=config.max_length)
        batches = fixed_batches(
            corpus,
            num_sequences=config.sequences,
            sequences_per_batch=SEQUENCES_PER_BATCH,
            seed=0,
            rank=0,
            num_ranks=1,
            mask_probability=config.mask_probability,
            mask_smoothing=config.mask_smoothing,
        )
        student, teacher = (load(name, corpus, device) for name in (config.student, config.teacher))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = evaluate(
        student, teacher, batches, temperature=config.temperature, device=device, reduce=lambda sums: sums
    )
    Path(config.output).write_text(json.dumps(figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(parse(ScoreConfig, sys.argv[1:], __doc__ or "", prog="python -m evaluation.ablation.score")))
