"""The data path's knobs: where the corpora are, how they are blended, cut, masked and fetched.

Imported by the command-line parser, so nothing heavy lives here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


def parse_corpora(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Prefixes and weights of `--data PREFIX[:WEIGHT] ...`; no weights where none is given.

    What follows a prefix's last colon is its weight if it is a number, and a part of the prefix otherwise.
    Errors: ValueError for a weight that is not positive and finite, and where only some of the corpora have one.
    """
    prefixes, weights = [], []
    for text in texts:
        prefix, weight = _split_weight(text)
        prefixes.append(prefix)
        if weight is not None:
            weights.append(weight)
    if weights and len(weights) < len(prefixes):
        bare = next(text for text in texts if _split_weight(text)[1] is None)
        raise ValueError(
            f"--data {bare} has no weight and others have: give every corpus one, as in {bare}:0.3, or none, "
            "for as many sequences of each as it has"
        )
    return tuple(prefixes), tuple(weights)


def _split_weight(text: str) -> tuple[str, float | None]:
    prefix, colon, tail = text.rpartition(":")
    try:
        weight = float(tail) if colon else None
    except ValueError:
        weight = None
    if weight is None:
        prefix = text
    elif not 0.0 < weight < math.inf:  # also refuses nan
        raise ValueError(
            f"--data {text}: the weight {tail} is not a positive number. Leave a corpus out to read none of it"
        )
    if not prefix:
        raise ValueError(
            f"--data {text or 'is empty'}: no corpus to train on. Give the prefix of a prepared corpus, such as corpus/wiki"
        )
    return prefix, weight


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to read and how to turn it into batches. Errors: ValueError naming the flag."""

    data: tuple[str, ...] = ("corpus/train",)
    """Prefixes of corpora prepared by `python -m data.prepare`: each with its share of the sequences, as in
    corpus/wiki:0.7 corpus/books:0.3, or all without, to read every corpus equally often."""

    eval_data: str = ""
    """Prefix of the held-out corpus, none of those in --data; empty means no held-out evaluation."""

    max_length: int = 512
    """Longest sequence in tokens, [CLS] and [SEP] included; documents are cut into pieces of max_length - 2."""

    mask_probability: float = 0.15
    """Share of a sequence's tokens to predict."""

    mask_smoothing: float = 0.7
    """Masking draws positions with weight count**-mask_smoothing: rare tokens more often. 0 draws them uniformly."""

    prefetch: int = 4
    """Micro-batches prepared ahead of the device."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("--data names no corpus. Give the prefix of a prepared one, such as corpus/wiki")
        parse_corpora(self.data)
        if self.max_length < 3:
            raise ValueError(
                f"--max_length {self.max_length} leaves no room for text between [CLS] and [SEP]. "
                "Give at least 3; 512 is usual"
            )
        if not 0.0 < self.mask_probability < 1.0:
            raise ValueError(
                f"--mask_probability {self.mask_probability} is not a share of the tokens. "
                "Give a value between 0 and 1, both excluded; 0.15 is usual"
            )
        if not 0.0 <= self.mask_smoothing <= 10.0:  # also refuses nan
            raise ValueError(
                f"--mask_smoothing {self.mask_smoothing} is no usable exponent. Give 0 (uniform) to 10; 0.7 is usual"
            )
        if self.prefetch < 1:
            raise ValueError(f"--prefetch {self.prefetch} prepares nothing. Give at least 1 micro-batch; 4 is usual")
