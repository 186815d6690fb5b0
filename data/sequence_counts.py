"""How many sequences lie before a document: what finds one of a billion sequences with two short searches.

A document's sequences are its tokens cut into pieces. Groups of 32 documents and blocks of 64 groups are counted: 8 bytes a
block, searched first, and 4 bytes a group, relative to its block. Within a group the lengths in the .idx are added up.

Shapes: S sequences asked for, B blocks.
"""

import numpy as np
import numpy.typing as npt

from data.index_file import GROUP, Index, Int64, blocks
from data.page_checks import PageChecks

GROUPS_PER_BLOCK = 64
BLOCKS_PER_PAGE = 16  # of a checksum: 4 KiB, of which checking takes a few microseconds
DOCUMENTS_PER_BLOCK = GROUP * GROUPS_PER_BLOCK
NARROW, WIDE = np.dtype("<u4"), np.dtype("<i8")


class SequenceCounts:
    """before_blocks (B + 1,): sequences before each block, and in all. ends (B * GROUPS_PER_BLOCK,), uint32 unless a block
    has more sequences than that holds: sequences of the block up to the end of each of its groups.

    `ends` may lie in the map of a file; `checks` then are the checksums of its pages, of BLOCKS_PER_PAGE blocks.
    """

    def __init__(self, before_blocks: Int64, ends: npt.NDArray[np.integer], checks: PageChecks | None = None) -> None:
        self.before_blocks, self.ends, self.checks = before_blocks, ends, checks
        self.num_sequences = int(before_blocks[-1])
        # As opaque bytes a block is copied at once, and need not be aligned.
        self._rows = ends.view(f"V{GROUPS_PER_BLOCK * ends.itemsize}")

    def find(self, sequence_ids: Int64) -> tuple[Int64, Int64, Int64]:
        """Of each sequence (S,): its group, how many of the group's sequences are before it, how many the group has.

        Errors: DamagedPageError.
        """
        # From the right: a block without tokens has no sequences and shares its count with the next one.
        block = np.searchsorted(self.before_blocks, sequence_ids, side="right") - 1
        if self.checks is not None:
            self.checks.check(block // BLOCKS_PER_PAGE)
        within = sequence_ids - self.before_blocks[block]
        ends = self._rows.take(block).view(self.ends.dtype).reshape(-1, GROUPS_PER_BLOCK)
        group = (ends > within.astype(ends.dtype)[:, None]).argmax(axis=1)
        at = np.arange(0, ends.size, GROUPS_PER_BLOCK) + group
        before = np.where(group > 0, ends.take(at - 1, mode="wrap"), 0).astype(np.int64)
        return block * GROUPS_PER_BLOCK + group, within - before, ends.take(at) - before


def pieces_of(lengths: npt.NDArray[np.integer], piece: int) -> npt.NDArray[np.integer]:
    """How many pieces of at most `piece` tokens documents of these lengths give, in the lengths' own type."""
    return (lengths + lengths.dtype.type(piece - 1)) // lengths.dtype.type(piece)


def count_sequences(index: Index, piece: int) -> SequenceCounts:
    """The counts for an .idx that was checked, its documents cut into pieces of `piece` tokens."""
    num_blocks = -(-index.num_documents // DOCUMENTS_PER_BLOCK)
    for dtype in (NARROW, WIDE):
        ends = np.empty((num_blocks, GROUPS_PER_BLOCK), dtype=dtype)
        before_blocks = np.zeros(num_blocks + 1, dtype=np.int64)
        done = 0
        for first, stop in blocks(0, index.num_documents):
            groups = np.arange(first // GROUP, -(-stop // GROUP))
            sequences = np.zeros((-(-(stop - first) // DOCUMENTS_PER_BLOCK), GROUPS_PER_BLOCK), dtype=np.int64)
            sequences.ravel()[: len(groups)] = pieces_of(index.group_lengths(groups), piece).sum(1, dtype=np.int64)
            up_to = sequences.cumsum(axis=1)
            ends[done : done + len(up_to)] = up_to
            done += len(up_to)
            before_blocks[done - len(up_to) + 1 : done + 1] = up_to[:, -1]
        if dtype == WIDE or int(before_blocks.max()) <= np.iinfo(NARROW).max:
            break
    return SequenceCounts(np.cumsum(before_blocks), ends.ravel())
