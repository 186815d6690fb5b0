"""Is a corpus what its PREFIX.json says? Every byte of it is read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.index_file import blocks
from data.indexed_dataset import IndexedDataset, corpus_file
from data.sidecar import file_facts, load_own_tokenizer

_TOKENS_AT_ONCE = 1 << 22  # bounds the memory


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found in order."""

    documents: int
    tokens: int
    bytes: int


def verify(prefix: str | Path) -> Verified:
    """Read the whole corpus and compare it with PREFIX.json: sizes, sha256 of both files, every token id, token counts, and
    the tokenizer beside it.

    Errors: ValueError naming file, document and byte offset where one is wrong; FileNotFoundError.
    """
    dataset = IndexedDataset(prefix)
    sidecar = dataset.sidecar
    if sidecar is None:
        raise ValueError(
            f"{prefix}.json is missing: there is nothing to verify {prefix}.bin against. Prepare the corpus again"
        )
    expected_counts = dataset.token_counts()  # first: its size is checked, so the vocabulary's is no mere claim
    counts = np.zeros_like(expected_counts)
    for start in range(0, len(dataset.tokens), _TOKENS_AT_ONCE):
        dataset.check_unchanged()
        block = dataset.tokens[start : start + _TOKENS_AT_ONCE]
        bad = np.flatnonzero((block < 0) | (block >= len(counts)))
        if bad.size:
            raise ValueError(_describe_token(dataset, start + int(bad[0]), len(counts)))
        counts += np.bincount(block, minlength=len(counts))
    for suffix, expected in ((".bin", sidecar.bin), (".idx", sidecar.idx)):
        path = corpus_file(prefix, suffix)
        found = file_facts(path)
        if found != expected:
            raise ValueError(
                f"{path}: sha256 is {found.sha256}, but {prefix}.json says {expected.sha256:.100}: the file was changed or "
                "damaged. Copy or prepare it again"
            )
    if not np.array_equal(counts, expected_counts):
        raise ValueError(
            f"{prefix}.token_counts.npy does not count the tokens of {prefix}.bin. Prepare the corpus again"
        )
    load_own_tokenizer(prefix, sidecar.tokenizer)
    total_bytes = sidecar.bin.size + sidecar.idx.size
    return Verified(documents=dataset.num_documents, tokens=dataset.num_tokens, bytes=total_bytes)


def _describe_token(dataset: IndexedDataset, token: int, vocab_size: int) -> str:
    document = "no document"
    for first, last in blocks(0, dataset.num_documents):
        starts, lengths = dataset.index.locate(np.arange(first, last))
        holding = np.flatnonzero((starts <= token) & (token < starts + lengths))
        if holding.size:
            document = f"document {first + int(holding[0])}"
            break
    return (
        f"{dataset.prefix}.bin: token id {dataset.tokens[token]} at byte {token * dataset.dtype.itemsize} ({document}) is "
        f"outside the vocabulary [0, {vocab_size}): the file was changed or damaged. Copy or prepare it again"
    )
