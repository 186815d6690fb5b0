"""The format, byte by byte: what others wrote opens here, what we write is what the description says, damage is refused."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus_writer import IndexedDatasetWriter
from data.indexed_dataset import IndexedDataset, token_dtype
from data.sidecar import read_sidecar
from data.verify import verify
from tests.data.helpers import VOCAB_SIZE, documents_of, random_documents, write_corpus

DOCUMENTS = [[[5, 6, 7], [8, 9]], [[10]], [], [[11, 12], [13], [14, 15, 16]]]  # documents of stored sequences of tokens


def write_by_hand(prefix: Path, documents: list[list[list[int]]], code: int = 8) -> None:
    """A corpus from the format's description, with struct alone."""
    letter, itemsize = {4: ("i", 4), 8: ("H", 2)}[code]
    sequences = [sequence for document in documents for sequence in document]
    tokens = [token for sequence in sequences for token in sequence]
    pointers, indices, pointer = [], [0], 0
    for sequence in sequences:
        pointers.append(pointer)
        pointer += itemsize * len(sequence)
    for document in documents:
        indices.append(indices[-1] + len(document))
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), len(indices))
    index += struct.pack(f"<{len(sequences)}i", *map(len, sequences))
    index += struct.pack(f"<{len(sequences)}q", *pointers) + struct.pack(f"<{len(indices)}q", *indices)
    Path(f"{prefix}.bin").write_bytes(struct.pack(f"<{len(tokens)}{letter}", *tokens))
    Path(f"{prefix}.idx").write_bytes(index)


def patch(path: Path, offset: int, layout: str, value: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(("code", "dtype"), [(4, np.int32), (8, np.uint16)])
def test_reads_what_the_description_says(tmp_path: Path, code: int, dtype: type) -> None:
    write_by_hand(tmp_path / "x", DOCUMENTS, code)
    dataset = IndexedDataset(tmp_path / "x")
    assert dataset.dtype == dtype
    assert (dataset.num_documents, dataset.num_tokens) == (4, 12)
    assert documents_of(dataset) == [[token for sequence in document for token in sequence] for document in DOCUMENTS]
    assert dataset.sidecar is None


def test_stretches_are_framed_by_zeros(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "x", DOCUMENTS)
    dataset = IndexedDataset(tmp_path / "x")
    everything = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    stretches = [(0, 12), (0, 1), (11, 1), (4, 0), (3, 5), (12, 0), (3, 5)]
    expected = [token for start, length in stretches for token in (0, *everything[start : start + length], 0)]
    starts, lengths = np.array(stretches).T
    assert dataset.framed(starts, lengths).tolist() == expected
    assert dataset.framed(starts[:0], lengths[:0]).tolist() == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.lists(st.integers(0, 60_000), max_size=4), max_size=3), max_size=6))
def test_reads_any_shape_of_corpus(tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]) -> None:
    prefix = tmp_path_factory.mktemp("any") / "x"
    write_by_hand(prefix, documents)
    dataset = IndexedDataset(prefix)
    assert documents_of(dataset) == [[token for sequence in document for token in sequence] for document in documents]


@pytest.mark.parametrize(("vocab_size", "code", "layout"), [(65_499, 8, "H"), (65_500, 4, "i"), (250_002, 4, "i")])
def test_writes_what_the_description_says(tmp_path: Path, vocab_size: int, code: int, layout: str) -> None:
    prefix = tmp_path / "deep" / "v1.5"  # a dot is part of the name
    documents = [np.array([1, 2, vocab_size - 1]), np.array([0]), np.array([4, 4])]
    with IndexedDatasetWriter(prefix, vocab_size) as writer:
        writer.add_document(documents[0])
        writer.add_documents(np.concatenate(documents[1:]), np.array([1, 2]))
    index, tokens = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    itemsize = struct.calcsize(layout)
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack_from("<QBQQ", index, 9) == (1, code, 3, 4)
    assert struct.unpack_from("<3i", index, 34) == (3, 1, 2)
    assert struct.unpack_from("<3q", index, 46) == (0, 3 * itemsize, 4 * itemsize)
    assert struct.unpack_from("<4q", index, 70) == (0, 1, 2, 3)
    assert len(index) == 102
    assert struct.unpack(f"<6{layout}", tokens) == (1, 2, vocab_size - 1, 0, 4, 4)
    assert writer.token_counts[4] == 2
    assert (writer.num_documents, writer.num_tokens) == (3, 6)
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["v1.5.bin", "v1.5.idx"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with IndexedDatasetWriter(tmp_path / "x", 100) as writer:
            writer.add_document(np.arange(9))
            assert not (tmp_path / "x.bin").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [-1, 100])
def test_the_writer_refuses_an_id_outside_the_vocabulary(tmp_path: Path, bad: int) -> None:
    with IndexedDatasetWriter(tmp_path / "x", 100) as writer:
        writer.add_documents(np.arange(6), np.array([1, 2, 3]))
        with pytest.raises(ValueError, match=rf"token id {bad} at position 2 of document 4 .*\[0, 100\)"):
            writer.add_documents(np.array([7, 0, 1, bad, 4]), np.array([1, 4]))


# Offsets in the .idx of DOCUMENTS: header, 6 lengths from 34, 6 pointers from 58, 5 document indices from 106.
DAMAGE = {
    "magic": (0, "<B", 0x4E, "magic"),
    "version": (9, "<Q", 2, "version at byte 9 is 2"),
    "double in one fork": (17, "<B", 6, "dtype code at byte 17 is 6"),
    "double in the other": (17, "<B", 7, "dtype code at byte 17 is 7"),
    "unknown dtype": (17, "<B", 99, "dtype code at byte 17 is 99"),
    "more sequences": (18, "<Q", 7, "sequence count 7"),
    "overflowing count": (18, "<Q", 2**61, f"sequence count {2**61}"),
    "no documents": (26, "<Q", 0, "document count at byte 26 is 0"),
    "fewer documents": (26, "<Q", 4, "document count 4"),
    "negative length": (38, "<i", -2, r"lengths\[1\] at byte 38 is -2"),
    "a length beyond the end": (54, "<i", 4, r"pointers\[5\] at byte 98 .* beyond"),
    "negative pointer": (66, "<q", -2, r"pointers\[1\] at byte 66 is -2"),
    "odd pointer": (74, "<q", 7, r"pointers\[2\] at byte 74 is 7: not a multiple"),
    "huge pointer": (98, "<q", 2**62, rf"pointers\[5\] at byte 98 is {2**62}.* beyond"),
    "torn document": (66, "<q", 2, r"pointers\[1\] at byte 66 is 2: .* same document"),
    "first document": (106, "<q", 1, r"document_indices\[0\] at byte 106 is 1"),
    "falling documents": (122, "<q", 1, r"document_indices\[2\] at byte 122 is 1"),
    "last document": (138, "<q", 5, r"document_indices\[4\], the last, is 5"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_refuses_a_damaged_index(tmp_path: Path, damage: str) -> None:
    offset, layout, value, message = DAMAGE[damage]
    write_by_hand(tmp_path / "x", DOCUMENTS)
    patch(tmp_path / "x.idx", offset, layout, value)
    with pytest.raises(ValueError, match=message) as raised:
        IndexedDataset(tmp_path / "x")
    assert str(tmp_path / "x.idx") in str(raised.value)


@pytest.mark.parametrize("kept", [0, 8, 33, 34, 100, 145])
def test_refuses_a_truncated_index(tmp_path: Path, kept: int) -> None:
    write_by_hand(tmp_path / "x", DOCUMENTS)
    path = tmp_path / "x.idx"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: (magic|file size is {kept})"):
        IndexedDataset(tmp_path / "x")


def test_refuses_a_truncated_bin_without_a_sidecar(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "x", DOCUMENTS)
    path = tmp_path / "x.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"pointers\[5\].*x\.bin's 22 bytes"):
        IndexedDataset(tmp_path / "x")


def test_documents_may_lie_anywhere_as_long_as_each_is_whole(tmp_path: Path) -> None:
    """Two one-sequence documents whose pointers are exchanged, as a merge may leave them."""
    write_by_hand(tmp_path / "x", [[[1, 2]], [[3, 4]]])
    patch(tmp_path / "x.idx", 42, "<q", 4)
    patch(tmp_path / "x.idx", 50, "<q", 0)
    assert documents_of(IndexedDataset(tmp_path / "x")) == [[3, 4], [1, 2]]


@pytest.mark.parametrize("missing", [".bin", ".idx"])
def test_a_missing_file_says_how_to_prepare_a_corpus(tmp_path: Path, missing: str) -> None:
    write_by_hand(tmp_path / "x", DOCUMENTS)
    Path(f"{tmp_path / 'x'}{missing}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"x\{missing}.*python -m data\.prepare --input .* --output"):
        IndexedDataset(tmp_path / "x")


def test_verify_accepts_what_was_written(tmp_path: Path) -> None:
    documents = random_documents(30, longest=50)
    write_corpus(tmp_path / "x", documents)
    found = verify(tmp_path / "x")
    assert (found.documents, found.tokens) == (30, sum(map(len, documents)))


def test_verify_finds_one_flipped_bit(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10), np.full(50, 20)])
    path = tmp_path / "x.bin"
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(ValueError, match=r"x\.bin: sha256"):
        verify(tmp_path / "x")


def test_verify_locates_a_token_outside_the_vocabulary(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10), np.full(50, 20)])
    patch(tmp_path / "x.bin", 2 * 63, "<H", VOCAB_SIZE)
    with pytest.raises(ValueError, match=rf"x\.bin: token id {VOCAB_SIZE} at byte 126 \(document 1\)"):
        verify(tmp_path / "x")


def test_verify_finds_wrong_token_counts(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10)])
    np.save(tmp_path / "x.token_counts.npy", np.arange(VOCAB_SIZE))
    with pytest.raises(ValueError, match=r"x\.token_counts\.npy"):
        verify(tmp_path / "x")


@pytest.mark.parametrize(("suffix", "change"), [(".bin", 2), (".bin", -2), (".idx", -8)])
def test_a_size_that_the_sidecar_does_not_know_is_refused_on_opening(tmp_path: Path, suffix: str, change: int) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10)])
    path = Path(f"{tmp_path / 'x'}{suffix}")
    content = path.read_bytes()
    path.write_bytes(content + bytes(change) if change > 0 else content[:change])
    with pytest.raises(
        ValueError, match=rf"x\{suffix} has {len(content) + change} bytes, .*x\.json says {len(content)}"
    ):
        IndexedDataset(tmp_path / "x")


def test_an_index_of_another_corpus_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10), np.full(20, 10)])
    write_corpus(tmp_path / "y", [np.full(50, 10), np.full(19, 10)])
    (tmp_path / "x.idx").write_bytes((tmp_path / "y.idx").read_bytes())
    with pytest.raises(ValueError, match=r"x\.idx: tokens is 69, but .*x\.json says 70"):
        IndexedDataset(tmp_path / "x")


def test_token_counts_are_checked(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.array([5, 5, 9])])
    counts = IndexedDataset(tmp_path / "x").token_counts()
    assert counts.tolist() == [2 if token == 5 else 1 if token == 9 else 0 for token in range(VOCAB_SIZE)]
    path = tmp_path / "x.token_counts.npy"
    np.save(path, np.arange(7))
    with pytest.raises(ValueError, match=r"no \.npy file of 120 int64 counts"):
        IndexedDataset(tmp_path / "x").token_counts()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no \.npy file"):
        IndexedDataset(tmp_path / "x").token_counts()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"x\.token_counts\.npy is missing"):
        IndexedDataset(tmp_path / "x").token_counts()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 2', "version is 2"),
        ('"cls_id"', '"kls_id"', r"tokenizer\.cls_id is missing"),
        ('"tokens": ', '"tokens": "many", "_": ', "tokens is 'many', not int"),
        ("{", "", "not valid JSON"),
    ],
)
def test_a_damaged_sidecar_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10)])
    path = tmp_path / "x.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"x\.json.*{message}"):
        read_sidecar(tmp_path / "x")


def test_the_dtype_rule() -> None:
    assert [token_dtype(size).name for size in (1, 65_499, 65_500)] == ["uint16", "uint16", "int32"]
