"""Counting and finding sequences against a plain list of them, for indexes of all shapes, written by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.index_file import GROUP, Index, check_index
from data.sequence_counts import DOCUMENTS_PER_BLOCK, WIDE, count_sequences


def write_by_hand(path: Path, documents: list[list[int]]) -> tuple[Index, int]:
    """The checked index of documents of stored sequences of these lengths, which lie end to end; and the .bin's size."""
    lengths = np.array([length for document in documents for length in document], dtype="<i4")
    pointers = 2 * (np.cumsum(lengths, dtype="<i8") - lengths)
    indices = np.cumsum([0, *map(len, documents)], dtype="<i8")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(indices))
    path.write_bytes(header + lengths.tobytes() + pointers.tobytes() + indices.tobytes())
    index, size = Index(path), 2 * int(lengths.sum(dtype=np.int64))
    check_index(index, path.with_suffix(".bin"), size)
    return index, size


def assert_counted(index: Index, document_lengths: list[int], piece: int) -> None:
    """`find`, for every sequence, says what walking through the documents says."""
    pieces = [-(-length // piece) for length in document_lengths]
    groups = [sum(pieces[first : first + GROUP]) for first in range(0, len(pieces), GROUP)]
    expected = [(group, nth, total) for group, total in enumerate(groups) for nth in range(total)]
    counts = count_sequences(index, piece)
    assert counts.num_sequences == len(expected)
    found = counts.find(np.arange(len(expected)))
    assert list(zip(*(values.tolist() for values in found), strict=True)) == expected


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(st.lists(st.integers(0, 40), max_size=3), max_size=150),
    repeats=st.sampled_from([1, 1, 1, 40]),
    piece=st.sampled_from([1, 2, 7, 126, 2**31 - 1]),
)
def test_counts_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], repeats: int, piece: int
) -> None:
    documents = documents * repeats
    index, _ = write_by_hand(tmp_path_factory.mktemp("any") / "x.idx", documents)
    assert index.is_one_to_one == all(len(document) == 1 for document in documents)
    assert_counted(index, [sum(document) for document in documents], piece)


@pytest.mark.parametrize("stored", [1, 2])
def test_documents_without_tokens_fill_groups_blocks_and_the_end(tmp_path: Path, stored: int) -> None:
    nothing, text = [0] * stored, [9, *[0] * (stored - 1)]
    documents = [nothing] * (DOCUMENTS_PER_BLOCK + 5) + [text] * 40 + [nothing] * (2 * DOCUMENTS_PER_BLOCK)
    documents += [text, *[nothing] * 31, text] + [nothing] * DOCUMENTS_PER_BLOCK
    index, _ = write_by_hand(tmp_path / "x.idx", documents)
    assert_counted(index, [sum(document) for document in documents], 4)


@pytest.mark.parametrize("number", [1, 31, 32, 33, 2047, 2048, 2049])
def test_any_number_of_documents(tmp_path: Path, number: int) -> None:
    lengths = np.random.default_rng(number).integers(0, 9, number).tolist()
    index, _ = write_by_hand(tmp_path / "x.idx", [[length] for length in lengths])
    assert_counted(index, lengths, 3)
    groups = np.arange(-(-number // GROUP))[::-1]
    padded = np.array(lengths + [0] * (-number % GROUP)).reshape(-1, GROUP)
    assert np.array_equal(index.group_lengths(groups), padded[::-1])


def test_more_sequences_in_a_block_than_32_bits_count(tmp_path: Path) -> None:
    longest = 2**31 - 1
    documents = [[longest], [5], [longest], [longest], *[[1]] * DOCUMENTS_PER_BLOCK, [7]]
    index, _ = write_by_hand(tmp_path / "x.idx", documents)
    counts = count_sequences(index, 1)
    assert counts.ends.dtype == WIDE
    lengths = [sum(document) for document in documents]
    assert counts.num_sequences == sum(lengths)
    ids = np.array([0, longest, 3 * longest + 4, 3 * longest + 5, sum(lengths) - 7, sum(lengths) - 1])
    last_group = len(documents) // GROUP
    first, last = sum(lengths[:GROUP]), sum(lengths[last_group * GROUP :])
    group, nth, total = counts.find(ids)
    assert group.tolist() == [0, 0, 0, 0, last_group, last_group]
    assert nth.tolist() == [*ids[:4].tolist(), last - 7, last - 1]
    assert total.tolist() == [first] * 4 + [last] * 2
    # Half of it: three documents' pieces fill 32 bits, and no more.
    assert count_sequences(index, 2).ends.dtype != WIDE
