"""A corpus written anew from another's documents, without some of its tokens.

Shapes: N documents, T their tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.corpus_writer import IndexedDatasetWriter
from data.index_file import blocks
from data.indexed_dataset import IndexedDataset
from data.tokenizer import Tokenizer

Int64 = npt.NDArray[np.int64]

_TOKENS_AT_ONCE = 1 << 20  # bounds the memory, but for a longer document


def write_copy(
    dataset: IndexedDataset, prefix: str, tokenizer: Tokenizer, drop: Sequence[int]
) -> tuple[IndexedDatasetWriter, dict[str, int]]:
    """PREFIX.bin and PREFIX.idx with the dataset's documents, one stored sequence each: (its writer, documents dropped).

    The ids in `drop`, which may be outside the vocabulary, are left out; documents in which nothing stays are dropped.
    Errors: ValueError for any other id outside the vocabulary, or when nothing is left at all.
    """
    if Path(prefix).resolve() == Path(dataset.prefix).resolve():
        raise ValueError(f"--output {prefix} is the corpus itself: give the copy another name")
    dropped = np.array(drop, dtype=np.int64)
    empty = 0
    with IndexedDatasetWriter(prefix, tokenizer.vocab_size) as writer:
        for tokens, lengths in _documents(dataset):
            stays = ~np.isin(tokens, dropped)
            before = np.concatenate(([0], np.cumsum(stays)))
            ends = np.cumsum(lengths)
            kept = before[ends] - before[ends - lengths]
            writer.add_documents(tokens[stays], kept[kept > 0])
            empty += int((kept == 0).sum())
        if writer.num_tokens == 0:
            raise ValueError(f"nothing of {dataset.prefix} is left without the ids of --drop")
    return writer, {"no_tokens": empty}


def _documents(dataset: IndexedDataset) -> Iterator[tuple[npt.NDArray[np.integer], Int64]]:
    """Tokens (T,) of some consecutive documents, end to end, and their lengths (N,)."""
    for first, last in blocks(0, dataset.num_documents):
        starts, lengths = dataset.index.locate(np.arange(first, last))
        group = np.cumsum(lengths) // _TOKENS_AT_ONCE
        for chosen in np.split(np.arange(last - first), np.flatnonzero(np.diff(group)) + 1):
            dataset.check_unchanged()
            of_group = lengths[chosen]
            ends = np.cumsum(of_group)
            source = np.repeat(starts[chosen] - (ends - of_group), of_group) + np.arange(ends[-1])
            yield dataset.tokens[source], of_group
