"""Sequences of a corpus as a person reads them, with the masks that training draws for them."""

import textwrap
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data.corpus import Corpus, Masker
from data.indexed_dataset import IndexedDataset
from data.lengths import Place
from data.tokenizer import Tokenizer

WIDTH = 100
LEGEND = "[word→[MASK]] is masked, [word→other] replaced by a random token, [word=] to predict but kept"

Decode = Callable[[npt.ArrayLike], str]


def decoder(tokenizer: Tokenizer | None) -> Decode:
    """Token ids to text without control characters; to the ids themselves where there is no tokenizer."""
    if tokenizer is None:
        return lambda ids: " ".join(map(str, np.asarray(ids).tolist()))
    vocab_size, decode = tokenizer.vocab_size, tokenizer.decode

    def readable(ids: npt.ArrayLike) -> str:
        known = [token for token in np.asarray(ids).tolist() if 0 <= token < vocab_size]
        return printable(decode(known)) if len(known) == np.size(ids) else " ".join(map(str, np.asarray(ids).tolist()))

    return readable


def printable(text: str) -> str:
    """The text on one line; a corpus must not be able to control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def stored(dataset: IndexedDataset, place: Place, decode: Decode) -> list[str]:
    """A sequence as it is stored: for a corpus whose special tokens nobody has named."""
    dataset.check_unchanged()
    tokens = dataset.tokens[place.start : place.start + place.tokens]
    return [*_wrapped(_heading(dataset, place), indent=""), *_wrapped(decode(tokens))]


def masked(corpus: Corpus, masker: Masker, place: Place, epoch: int, decode: Decode) -> list[str]:
    """A sequence as training reads it in an epoch, with [CLS], [SEP] and its mask."""
    ids = np.array([place.sequence])
    tokens, cu_seqlens = corpus.packed(ids)
    corrupted, positions, labels = masker(tokens, cu_seqlens, ids, np.array([epoch]))
    hidden = int((corrupted[positions] == corpus.tokenizer.mask_id).sum())
    kept = int((corrupted[positions] == labels).sum())
    counts = f"{hidden} [MASK], {len(positions) - hidden - kept} replaced, {kept} kept"
    heading = f"{_heading(corpus.dataset, place)}; {len(positions)} of {len(tokens)} to predict: {counts}"
    return [*_wrapped(heading, indent=""), *_wrapped(_marked(tokens, corrupted, positions, corpus.special, decode))]


def _marked(
    tokens: npt.NDArray[np.int64],
    corrupted: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    special: npt.NDArray[np.bool_],
    decode: Decode,
) -> str:
    """The text, cut where a token stands for itself: a special one or one to predict."""
    alone = special[tokens]
    alone[positions] = True
    to_predict = np.zeros(len(tokens), dtype=bool)
    to_predict[positions] = True
    cuts = np.flatnonzero(alone | np.concatenate(([True], alone[:-1])))
    parts = []
    for first, end in zip(cuts, [*cuts[1:], len(tokens)], strict=True):
        word = decode(tokens[first:end]).strip()
        if to_predict[first]:
            is_kept = corrupted[first] == tokens[first]
            word = f"[{word}=]" if is_kept else f"[{word}→{decode(corrupted[first:end]).strip()}]"
        parts.append(word)
    return " ".join(parts)


def _heading(dataset: IndexedDataset, place: Place) -> str:
    byte = place.start * dataset.dtype.itemsize
    return (
        f"sequence {place.sequence}: document {place.document}, tokens {place.first} to "
        f"{place.first + place.tokens - 1} of {place.document_tokens}, at byte {byte} of the .bin"
    )


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent="  ", break_on_hyphens=False) or ["  "]
