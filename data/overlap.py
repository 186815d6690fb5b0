"""How much of one corpus is in another: whole documents, and shingles (runs of n tokens).

Documents are compared by hash, sorted in partitions on disk. Shingles are sampled by their hash, so that both corpora
sample the same ones: those of the other corpus are kept in memory, this one streams past them. Memory is bounded by
constants, whatever the sizes of the two.

Shapes: N documents, T tokens, K sampled shingles.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data.hashing import Uint64, random_bits
from data.index_file import blocks
from data.indexed_dataset import IndexedDataset

Int64 = npt.NDArray[np.int64]

_RECORD = np.dtype([("digest", "<u8"), ("document", "<i8")])
_RECORDS_AT_ONCE = 1 << 22  # of a partition that is sorted: 64 MiB
_MOST_PARTITIONS = 256  # open files
_TOKENS_AT_ONCE = 1 << 20
_MOST_SHINGLES = 1 << 22  # of the other corpus that are kept
_FILTER_BITS = 25  # 32 MiB
_FEWEST_SAMPLED = 16  # of a document whose share means something
_BASE = 0xD1342543DE82EF95  # an odd multiplier of good spectral quality (Steele & Vigna 2021)


@dataclass(frozen=True, kw_only=True)
class SharedDocuments:
    """Documents of the other corpus that are in this one, token for token; empty ones are not compared."""

    number: int
    examples: list[tuple[int, int]]
    """(document of the other corpus, document of this one), the first few."""


@dataclass(frozen=True, kw_only=True)
class SharedShingles:
    """Sampled shingles of the other corpus, and which of them occur in this one."""

    rate: int
    """One of `rate` shingles is sampled."""
    documents: Int64
    """(K,) ascending: the document of the other corpus that each is in."""
    found: npt.NDArray[np.bool_]
    """(K,)"""

    def by_document(self) -> tuple[Int64, Int64, Int64]:
        """(documents, how many of their shingles are sampled, how many of those are found), most overlapping first.

        Of a sample, documents with fewer than 16 sampled shingles are left out.
        """
        documents, inverse, sampled = np.unique(self.documents, return_inverse=True, return_counts=True)
        found = np.bincount(inverse, weights=self.found, minlength=len(documents)).astype(np.int64)
        order = np.lexsort((documents, -found, -found / sampled))
        if self.rate > 1:
            order = order[sampled[order] >= _FEWEST_SAMPLED]
        return documents[order], sampled[order], found[order]


def shared_documents(this: IndexedDataset, other: IndexedDataset, examples: int = 3) -> SharedDocuments:
    """Which documents of `other` are in `this`. Writes 16 bytes a document into TMPDIR, and removes them."""
    wanted = -(-(this.num_documents + other.num_documents) // _RECORDS_AT_ONCE)
    partitions = min(max(wanted, 1), _MOST_PARTITIONS)
    dtype = np.promote_types(this.dtype, other.dtype)  # so that equal tokens are equal bytes
    number, pairs = 0, []
    with tempfile.TemporaryDirectory(prefix="distillery-compare-") as name:
        folder = Path(name)
        for dataset, side in ((this, "this"), (other, "other")):
            _write_digests(dataset, dtype, [folder / f"{side}.{part}" for part in range(partitions)])
        for part in range(partitions):
            here = np.sort(np.fromfile(folder / f"this.{part}", dtype=_RECORD))
            there = np.fromfile(folder / f"other.{part}", dtype=_RECORD)
            at = np.searchsorted(here["digest"], there["digest"])
            inside = np.flatnonzero(at < len(here))
            same = inside[here["digest"][at[inside]] == there["digest"][inside]]
            number += len(same)
            pairs += [(int(there["document"][row]), int(here["document"][at[row]])) for row in same[:examples]]
    return SharedDocuments(number=number, examples=sorted(pairs)[:examples])


def _write_digests(dataset: IndexedDataset, dtype: np.dtype, paths: list[Path]) -> None:
    """A record for each document that has tokens, in the file of its partition."""
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = [stack.enter_context(path.open("wb")) for path in paths]
        for first, last in blocks(0, dataset.num_documents):
            dataset.check_unchanged()
            starts, lengths = dataset.index.locate(np.arange(first, last))
            filled = np.flatnonzero(lengths)
            digests = b"".join(
                hashlib.blake2b(dataset.tokens[start:end].astype(dtype, copy=False).tobytes(), digest_size=8).digest()
                for start, end in zip(starts[filled], (starts + lengths)[filled], strict=True)
            )
            records = np.empty(len(filled), dtype=_RECORD)
            records["digest"], records["document"] = np.frombuffer(digests, dtype="<u8"), first + filled
            part = records["digest"] % np.uint64(len(files))
            order = np.argsort(part, kind="stable")
            ends = np.searchsorted(part[order], np.arange(1, len(files) + 1, dtype=np.uint64))
            for file, of_part in zip(files, np.split(records[order], ends[:-1]), strict=True):
                of_part.tofile(file)


def shared_shingles(this: IndexedDataset, other: IndexedDataset, length: int, vocab_size: int) -> SharedShingles:
    """Which shingles of `length` tokens of `other` are in `this`; a shingle lies within one document.

    All of them where the other corpus has at most some millions, else one of the smallest sufficient power of two.
    """
    rate = 1
    while other.num_tokens > rate * _MOST_SHINGLES:
        rate *= 2
    sampled = list(_sampled_shingles(other, length, vocab_size, rate))
    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *(found for found, _ in sampled)])
    documents = np.concatenate([np.empty(0, dtype=np.int64), *(number for _, number in sampled)])
    wanted, which = np.unique(hashes, return_inverse=True)
    is_found = np.zeros(len(wanted), dtype=bool)
    # Most shingles are nowhere in `wanted`: one look at a table says so, where a search would take twenty.
    shift = np.uint64(64 - _FILTER_BITS)
    may_be_wanted = np.zeros(1 << _FILTER_BITS, dtype=bool)
    may_be_wanted[wanted >> shift] = True
    for found, _ in _sampled_shingles(this, length, vocab_size, rate) if len(wanted) else ():
        likely = np.sort(found[may_be_wanted[found >> shift]])
        at = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        is_found[at[wanted[at] == likely]] = True
    return SharedShingles(rate=rate, documents=documents, found=is_found[which])


def _sampled_shingles(
    dataset: IndexedDataset, length: int, vocab_size: int, rate: int
) -> Iterator[tuple[Uint64, Int64]]:
    """Hashes of the sampled shingles and their documents, in the order of the documents, block by block."""
    table = random_bits(np.arange(vocab_size))  # similar ids must not give similar hashes
    mask = np.uint64(rate - 1)
    for documents, starts, shingles in _spans(dataset, length):
        dataset.check_unchanged()
        tokens = shingles + length - 1
        ends = np.cumsum(tokens)
        source = np.repeat(starts - (ends - tokens), tokens) + np.arange(ends[-1])
        hashes = _rolling(table.take(dataset.tokens[source], mode="clip"), length)
        # The last length - 1 positions of a span have no room for a whole shingle.
        at = np.arange(shingles.sum()) + np.repeat((length - 1) * np.arange(len(shingles)), shingles)
        hashes = random_bits(hashes[at])
        chosen = np.flatnonzero((hashes & mask) == 0)
        yield hashes[chosen], np.repeat(documents, shingles)[chosen]


def _spans(dataset: IndexedDataset, length: int) -> Iterator[tuple[Int64, Int64, Int64]]:
    """(documents, first tokens, numbers of shingles) of pieces of documents, about _TOKENS_AT_ONCE shingles at a time."""
    for first, last in blocks(0, dataset.num_documents):
        starts, lengths = dataset.index.locate(np.arange(first, last))
        shingles = np.maximum(lengths - (length - 1), 0)
        pieces = -(-shingles // _TOKENS_AT_ONCE)
        document = np.repeat(np.arange(last - first), pieces)
        offset = (np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _TOKENS_AT_ONCE
        counts = np.minimum(shingles[document] - offset, _TOKENS_AT_ONCE)
        group = np.cumsum(counts + length) // _TOKENS_AT_ONCE
        for of_group in np.split(np.arange(len(document)), np.flatnonzero(np.diff(group)) + 1):
            if of_group.size:
                chosen = document[of_group]
                yield first + chosen, starts[chosen] + offset[of_group], counts[of_group]


def _rolling(values: Uint64, length: int) -> Uint64:
    """(T - length + 1,) the polynomial hash of each run of `length` of the values (T,), modulo 2**64.

    Hashes of runs twice as long come from those of two halves: log2(length) passes instead of `length`.
    """
    half, half_length = values, 1
    whole, whole_length = np.zeros(len(values) + 1, dtype=np.uint64), 0  # runs of no value, to which halves are joined
    while True:
        factor = np.uint64(pow(_BASE, half_length, 1 << 64))
        if length & half_length:
            whole = whole[: len(half) - whole_length] * factor + half[whole_length:]
            whole_length += half_length
        if 2 * half_length > length:
            return whole[: len(values) - length + 1]
        half = half[:-half_length] * factor + half[half_length:]
        half_length *= 2
