"""How long the documents of a corpus are, and the sequences that they are cut into; which document a sequence is from.

One pass over the index in blocks; what is kept does not grow with the corpus. Everything is exact, but that documents of
65,536 tokens and more are counted in bins a thousandth of their length wide.

Shapes: N documents, L bins of document lengths.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.index_file import BLOCK, blocks
from data.indexed_dataset import IndexedDataset

Int64 = npt.NDArray[np.int64]

_EXACT_BITS = 16
EXACT_BELOW = 1 << _EXACT_BITS  # shorter documents are counted by their exact length
_FINE_BITS = 10  # longer ones in 2**10 bins for each power of two
_NUM_BINS = EXACT_BELOW + ((62 - _EXACT_BITS) << _FINE_BITS)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sequence's tokens, [CLS] and [SEP] not among them, are stored."""

    sequence: int
    document: int
    document_tokens: int
    first: int
    """Its first token, counted within the document."""
    tokens: int
    start: int
    """Its first token, counted within the .bin."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What `measure_lengths` found."""

    dataset: IndexedDataset
    max_length: int
    longest: int
    longest_document: int
    document_bins: Int64
    """(L,) documents in each bin; see `bin_edges`."""
    sequence_counts: Int64
    """(max_length + 1,) sequences of each length, [CLS] and [SEP] included."""
    first_sequence: Int64
    """(blocks + 1,) sequences before every BLOCK documents, and in all."""

    @property
    def num_sequences(self) -> int:
        return int(self.first_sequence[-1])

    def quantile(self, share: float) -> int:
        """The shortest length that `share` of the documents do not exceed; 0 where there are none."""
        ranks = np.cumsum(self.document_bins)
        if not ranks[-1]:
            return 0
        return int(bin_edges()[np.searchsorted(ranks, max(share * ranks[-1], 1))])

    def by_power_of_two(self) -> list[tuple[int, int, int]]:
        """(shortest, longest, documents) in powers of two; no tokens are a bin of their own."""
        exponents = np.frexp(bin_edges())[1]  # 0 for 0, 1 for 1, 2 for 2 and 3
        counts = np.bincount(exponents, weights=self.document_bins).astype(np.int64)
        filled = np.flatnonzero(counts)
        rows = range(filled[0], filled[-1] + 1) if filled.size else ()
        return [(1 << (row - 1) if row else 0, (1 << row) - 1, int(counts[row])) for row in rows]

    def padding_share(self, sequences_per_batch: int | None = None) -> float:
        """Share of the positions that are padding where a batch of random sequences is filled up to its longest.

        None: filled up to max_length.
        """
        counts = self.sequence_counts
        longest = float(self.max_length)
        if sequences_per_batch is not None:
            below = np.cumsum(counts[:-1]) / counts.sum()  # share of sequences of at most 0, 1, ... tokens
            longest = float((1.0 - below**sequences_per_batch).sum())
        mean = float(counts @ np.arange(len(counts))) / counts.sum()
        return 1.0 - mean / longest

    def locate(self, sequence: int) -> Place:
        """The place of a sequence. Errors: ValueError when there is none of that number."""
        if not 0 <= sequence < self.num_sequences:
            raise ValueError(
                f"there is no sequence {sequence}: {self.dataset.prefix} has {self.num_sequences} at --max_length "
                f"{self.max_length}, numbered from 0"
            )
        block = int(np.searchsorted(self.first_sequence, sequence, side="right")) - 1
        _, pieces = self._block(block)
        ends = self.first_sequence[block] + np.cumsum(pieces)
        at = int(np.searchsorted(ends, sequence, side="right"))
        return self._place(block * BLOCK + at, sequence, sequence - int(ends[at] - pieces[at]))

    def of_document(self, document: int) -> range:
        """The numbers of a document's sequences. Errors: ValueError when there is no such document."""
        if not 0 <= document < self.dataset.num_documents:
            raise ValueError(
                f"there is no document {document}: {self.dataset.prefix} has {self.dataset.num_documents}, numbered from 0"
            )
        block, at = divmod(document, BLOCK)
        _, pieces = self._block(block)
        first = int(self.first_sequence[block] + pieces[:at].sum())
        return range(first, first + int(pieces[at]))

    def _block(self, block: int) -> tuple[Int64, Int64]:
        """Lengths and numbers of sequences of a block's documents."""
        last = min((block + 1) * BLOCK, self.dataset.num_documents)
        lengths = self.dataset.index.locate(np.arange(block * BLOCK, last))[1]
        return lengths, -(-lengths // (self.max_length - 2))

    def _place(self, document: int, sequence: int, nth: int) -> Place:
        starts, lengths = self.dataset.index.locate(np.array([document]))
        first = nth * (self.max_length - 2)
        return Place(
            sequence=sequence,
            document=document,
            document_tokens=int(lengths[0]),
            first=first,
            tokens=min(int(lengths[0]) - first, self.max_length - 2),
            start=int(starts[0]) + first,
        )


def bin_edges() -> Int64:
    """(L,) the shortest length in each bin."""
    fine = np.arange(1 << _FINE_BITS, 2 << _FINE_BITS) << (_EXACT_BITS - _FINE_BITS)
    powers = [fine << more for more in range(62 - _EXACT_BITS)]
    return np.concatenate([np.arange(EXACT_BELOW), *powers])


def measure_lengths(dataset: IndexedDataset, max_length: int) -> Lengths:
    """Every document's length, and the sequences of at most `max_length` tokens that it is cut into."""
    piece = max_length - 2
    bins, remainders = np.zeros(_NUM_BINS, dtype=np.int64), np.zeros(piece, dtype=np.int64)
    longest, longest_document, full = 0, 0, 0
    sequences = [0]
    for first, last in blocks(0, dataset.num_documents):
        dataset.check_unchanged()
        lengths = dataset.index.locate(np.arange(first, last))[1]
        at = int(lengths.argmax())
        if lengths[at] > longest:
            longest, longest_document = int(lengths[at]), first + at
        bins += np.bincount(_bins(lengths), minlength=_NUM_BINS)
        whole = lengths // piece
        rest = np.bincount(lengths - whole * piece, minlength=piece)
        remainders += rest
        full += int(whole.sum())
        sequences.append(int(whole.sum() + rest[1:].sum()))
    counts = np.concatenate(([0, 0, 0], remainders[1:], [full]))
    return Lengths(
        dataset=dataset,
        max_length=max_length,
        longest=longest,
        longest_document=longest_document,
        document_bins=bins,
        sequence_counts=counts,
        first_sequence=np.cumsum(sequences),
    )


def _bins(lengths: Int64) -> Int64:
    """The bin of each length (N,)."""
    long = np.flatnonzero(lengths >> _EXACT_BITS)
    if not long.size:
        return lengths
    exponents = np.frexp(lengths[long])[1].astype(np.int64) - 1
    fine = (lengths[long] >> (exponents - _FINE_BITS)) - (1 << _FINE_BITS)
    found = lengths.copy()
    found[long] = EXACT_BELOW + ((exponents - _EXACT_BITS) << _FINE_BITS) + fine
    return found
