"""What each corpus of a blend will give to a run: known before the first update, since a stream is arithmetic."""

from collections.abc import Iterator
from pathlib import Path

from data.blend import Blend

REPEATS_WORTH_READING = 4.0
"""Epochs up to which repeated text is nearly as good as new, for language models (Muennighoff et al. 2023)."""


def contributions(blend: Blend, num_sequences: int) -> Iterator[str]:
    """A line for each corpus, for a run of so many sequences. Tokens count [CLS] and [SEP], as those in metrics do."""
    epochs = blend.epochs(num_sequences)
    for corpus, prefix, share, passes in zip(blend.corpora, blend.prefixes, blend.shares, epochs, strict=True):
        tokens = corpus.dataset.num_tokens + 2 * corpus.num_sequences
        yield (
            f"{prefix}: {corpus.dataset.num_documents:,} documents, {corpus.num_sequences:,} sequences, {tokens:,} tokens; "
            f"{100 * share:.5g}% of the sequences: {tokens * passes:,.0f} tokens in this run, {passes:.2f} epochs"
        )


def repetitions(blend: Blend, num_sequences: int) -> Iterator[str]:
    """A warning for each corpus that a run of so many sequences repeats too often."""
    for prefix, passes in zip(blend.prefixes, blend.epochs(num_sequences), strict=True):
        if passes > REPEATS_WORTH_READING:
            yield (
                f"{prefix} will be read {passes:.1f} times. Up to {REPEATS_WORTH_READING:g} times, repeated text was nearly "
                "as good as new for language models, then less and less (Muennighoff et al. 2023)"
            )


def epochs_by_name(blend: Blend, num_sequences: int) -> dict[str, float]:
    """Passes so far over each corpus, as fields of metrics; none where they are alike, so that `epoch` says all."""
    if not blend.is_weighted:
        return {}
    names = [Path(prefix).name for prefix in blend.prefixes]
    names = [name if names.count(name) == 1 else prefix for name, prefix in zip(names, blend.prefixes, strict=True)]
    return {f"epoch_{name}": float(passes) for name, passes in zip(names, blend.epochs(num_sequences), strict=True)}
