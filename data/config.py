"""The data path's knobs: where the corpus is, how it is cut, masked and fetched.

Imported by the command-line parser, so nothing heavy lives here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to read and how to turn it into batches. Errors: ValueError naming the flag."""

    data: str = "corpus/train"
    """Prefix of the prepared corpus: PREFIX.bin, PREFIX.idx and PREFIX.json, written by `python -m data.prepare`."""

    eval_data: str = ""
    """Prefix of the held-out corpus; empty means no held-out evaluation."""

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
            raise ValueError(
                "--data is empty, there is nothing to train on. Give the prefix of a prepared corpus, such as corpus/wiki"
            )
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
