"""Which documents become part of a corpus: cleaning, exact duplicates, and the side of a held-out split.

What a single document decides (length, unknown tokens, Unicode form, its side of the split) is decided where it is encoded;
duplicates need all documents and are found when the parts are merged (data/merge.py).
"""

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.prepare_config import CleaningConfig, UnicodeForm

DIGEST = np.dtype("V16")
"""A document's digest: 128 bits of blake2b over its text. Two of 10^12 different documents agree with probability 10^-15."""


def normalized(texts: list[str], form: UnicodeForm) -> list[str]:
    """The texts in a Unicode normalisation form."""
    return texts if form == "none" else [unicodedata.normalize(form, text) for text in texts]


def digests_of(texts: Sequence[str]) -> npt.NDArray[np.void]:
    """(len(texts),) of DIGEST."""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=DIGEST.itemsize).digest() for text in texts)
    return np.frombuffer(joined, dtype=DIGEST)


def is_held_out(digests: npt.NDArray[np.void], share: float) -> npt.NDArray[np.bool_]:
    """Which documents are held out: those whose digest's first 64 bits, as a number in [0, 1), are below the share."""
    first = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)[:, 0]
    return first < np.uint64(share * 2.0**64)


def kept_documents(
    tokens: npt.NDArray[np.integer], lengths: npt.NDArray[np.int64], unk_id: int, config: CleaningConfig
) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Which of some documents stay, (D,), and how many do not, by reason.

    tokens (N,): their ids end to end; lengths (D,).
    """
    empty = lengths == 0
    short = ~empty & (lengths < config.min_tokens)
    # Counted by differences of a running sum: reduceat would take the wrong document for one without tokens.
    running = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(tokens == unk_id)))
    ends = np.cumsum(lengths)
    unknown = running[ends] - running[ends - lengths]
    unreadable = ~empty & ~short & (unknown >= config.max_unknown_share * lengths)
    dropped = {"no_tokens": empty, "short": short, "unknown": unreadable}
    return ~(empty | short | unreadable), {name: int(mask.sum()) for name, mask in dropped.items() if mask.any()}
