"""What the first opening of a corpus leaves behind: used, never believed against the files, never a reason to fail."""

import contextlib
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import counts_file
from data.batching import Corpus
from data.counts_file import CountsFile
from data.index_file import header
from data.indexed_dataset import IndexedDataset
from data.sidecar import FileFacts, read_sidecar, write_sidecar
from data.verify import verify
from tests.data.helpers import random_documents, write_corpus
from tests.launch import ROOT

MAX_LENGTH = 12
DOCUMENTS = [*random_documents(70, longest=40), np.empty(0, dtype=np.int64), *random_documents(30, longest=9, seed=1)]


@pytest.fixture(autouse=True)
def for_small_corpora_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_file, "SMALLEST", 0)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "x", DOCUMENTS)
    return tmp_path / "x"


def file_of(prefix: Path) -> Path:
    return Path(f"{prefix}.cache/{MAX_LENGTH}")


def read(corpus: Corpus) -> list[list[int]]:
    """All its sequences, read in another order than they lie in."""
    order = np.random.default_rng(0).permutation(corpus.num_sequences)
    tokens, cu_seqlens = corpus.packed(order)
    assert corpus.lengths(order).tolist() == np.diff(cu_seqlens).tolist()
    sequences = [piece.tolist() for piece in np.split(tokens, cu_seqlens[1:-1])]
    return [sequences[at] for at in np.argsort(order)]


def by_hand(documents: list[np.ndarray]) -> list[list[int]]:
    piece = MAX_LENGTH - 2
    cut = [document[at : at + piece] for document in documents for at in range(0, len(document), piece)]
    return [[2, *tokens.tolist(), 3] for tokens in cut]


def open_corpus(prefix: Path) -> Corpus:
    return Corpus.open(prefix, max_length=MAX_LENGTH)


def store_in_halves(prefix: Path) -> None:
    """The same corpus with two stored sequences to a document, as Megatron-LM writes sentences."""
    lengths = [half for document in DOCUMENTS for half in (len(document) // 2, len(document) - len(document) // 2)]
    pointers = [2 * sum(lengths[:number]) for number in range(len(lengths))]
    indices = range(0, len(lengths) + 1, 2)
    idx = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(indices))
    idx += struct.pack(f"<{len(lengths)}i{len(lengths)}q{len(indices)}q", *lengths, *pointers, *indices)
    Path(f"{prefix}.idx").write_bytes(idx)
    sidecar = read_sidecar(prefix)
    assert sidecar is not None
    facts = FileFacts(size=len(idx), sha256=hashlib.sha256(idx).hexdigest())
    write_sidecar(prefix, replace(sidecar, idx=facts))


@pytest.mark.parametrize("stored", ["whole", "in halves"])
def test_the_second_opening_reads_nothing_again_and_gives_the_same(
    prefix: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stored == "in halves":
        store_in_halves(prefix)
    first = open_corpus(prefix)
    assert "101 documents validated and counted" in first.note
    assert str(file_of(prefix)) in first.note
    assert read(first) == by_hand(DOCUMENTS)
    monkeypatch.setattr("data.indexed_dataset.check_index", None)
    monkeypatch.setattr("data.counts_file.count_sequences", None)
    second = open_corpus(prefix)
    assert second.note == ""
    assert read(second) == by_hand(DOCUMENTS)
    assert second.dataset.num_tokens == first.dataset.num_tokens
    assert second.dataset.index.is_one_to_one == (stored == "whole")
    assert [path.name for path in file_of(prefix).parent.iterdir()] == [str(MAX_LENGTH)]


def test_counts_beyond_32_bits(prefix: Path) -> None:
    """Documents of which three fill 32 bits, cut into single tokens; the .bin is a hole."""
    lengths = np.array([2**31 - 1, 4, 2**31 - 1, 2**31 - 1, 0, 3], dtype=np.int64)
    tokens = int(lengths.sum())
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(header(np.dtype("<u2"), len(lengths)))
        pointers = 2 * (np.cumsum(lengths) - lengths)
        for array in (lengths.astype("<i4"), pointers, np.arange(len(lengths) + 1)):
            file.write(array.data)
    os.truncate(f"{prefix}.bin", 2 * tokens)
    sidecar, size = read_sidecar(prefix), Path(f"{prefix}.idx").stat().st_size
    assert sidecar is not None
    sizes = {"bin": FileFacts(size=2 * tokens, sha256=""), "idx": FileFacts(size=size, sha256="")}
    write_sidecar(prefix, replace(sidecar, documents=len(lengths), tokens=tokens, **sizes))
    for _ in range(2):
        corpus = Corpus.open(prefix, max_length=3)
        assert corpus.num_sequences == tokens
        assert corpus.packed([tokens - 1, 5_000_000_000])[0].tolist() == [2, 0, 3, 2, 0, 3]
        documents, offsets, _ = corpus._locate([0, 2**31 - 2, 2**31 - 1, 5_000_000_000, tokens - 1])
        assert documents.tolist() == [0, 0, 1, 3, 5]
        assert offsets.tolist() == [0, 2**31 - 2, 0, 5_000_000_000 - 2 * (2**31 - 1) - 4, 2]
    assert corpus.note == ""


def test_each_max_length_has_its_own(prefix: Path) -> None:
    for max_length in (5, 12, 100):
        numbers = {Corpus.open(prefix, max_length=max_length).num_sequences for _ in range(2)}
        assert numbers == {sum(-(-len(document) // (max_length - 2)) for document in DOCUMENTS)}


def test_a_small_corpus_leaves_nothing_behind(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert open_corpus(prefix).note == ""
    assert not file_of(prefix).exists()


def test_no_damaged_byte_and_no_cut_gives_a_wrong_sequence(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda number: None)  # hundreds of them
    expected = read(open_corpus(prefix))
    assert expected == by_hand(DOCUMENTS)
    path, good = file_of(prefix), file_of(prefix).read_bytes()
    head = 72 + 8 * 2 + 4 + 4
    assert len(good) == 4096 + 64 * 4
    noticed = 0
    for at in [*range(head), *range(4096, len(good), 3)]:
        path.unlink()
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        corpus = open_corpus(prefix)
        assert read(corpus) == expected
        assert corpus.note
        noticed += "was damaged" in corpus.note
        assert path.read_bytes() == good  # replaced
    assert noticed == len(range(4096, len(good), 3))
    for kept in (0, 1, 63, 64, head, 4095, 4096, len(good) - 1):
        path.unlink()
        path.write_bytes(good[:kept])
        assert read(open_corpus(prefix)) == expected
        assert path.read_bytes() == good
    path.write_bytes(good + b"\0")
    assert read(open_corpus(prefix)) == expected


def test_damage_while_it_is_in_use(prefix: Path) -> None:
    write_corpus(prefix, documents := random_documents(40_000, longest=3))  # two pages
    expected = by_hand(documents)
    open_corpus(prefix)
    corpus = open_corpus(prefix)
    assert corpus.lengths([0]).tolist() == [len(expected[0])]
    with file_of(prefix).open("r+b") as file:
        file.seek(-256, os.SEEK_END)
        file.write(bytes(256))
    assert corpus.lengths([1]).tolist() == [len(expected[1])]
    assert corpus.note == ""
    assert corpus.lengths([39_999]).tolist() == [len(expected[39_999])]
    assert "was damaged" in corpus.note
    assert open_corpus(prefix).lengths([39_999]).tolist() == [len(expected[39_999])]

    corpus = open_corpus(prefix)
    os.truncate(file_of(prefix), 0)  # reading it now would be SIGBUS
    assert corpus.lengths(np.arange(40_000)).tolist() == [len(sequence) for sequence in expected]
    assert open_corpus(prefix).lengths([39_999]).tolist() == [len(expected[39_999])]


def test_counts_of_files_that_were_written_anew_are_not_used(prefix: Path) -> None:
    """The same sizes and the same number of tokens, in another order."""
    open_corpus(prefix)
    write_corpus(prefix, DOCUMENTS[::-1])
    assert read(open_corpus(prefix)) == by_hand(DOCUMENTS[::-1])


def test_a_corpus_from_elsewhere_is_validated_whatever_came_along(prefix: Path, tmp_path: Path) -> None:
    """Copied with all its times, as archives do, its .idx damaged in a way that only validating it finds."""
    open_corpus(prefix)
    other = shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere")) / "x"
    assert file_of(other).read_bytes() == file_of(prefix).read_bytes()
    assert os.stat(f"{other}.idx").st_mtime_ns == os.stat(f"{prefix}.idx").st_mtime_ns
    assert "validated" in open_corpus(other).note
    shutil.copy2(file_of(prefix), file_of(other))

    path = Path(f"{other}.idx")
    times, content = path.stat(), bytearray(path.read_bytes())
    struct.pack_into("<q", content, 34 + 4 * len(DOCUMENTS), 1)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match=r"pointers\[0\] at byte \d+ is 1: not a multiple"):
        open_corpus(other)


def test_verify_does_not_look_at_it_and_nothing_it_says_leaves_the_corpus(prefix: Path) -> None:
    """An index that is not in order, and counts that say it is: as if somebody had both keys and bad intentions."""
    counts = open_corpus(prefix)._counts
    pointers = 34 + 4 * len(DOCUMENTS)
    for value in (2**40, -(2**40), 2**62):
        with Path(f"{prefix}.idx").open("r+b") as file:
            file.seek(pointers)
            file.write(struct.pack("<q", value))
        dataset = IndexedDataset(prefix, check=False)
        assert CountsFile(dataset, MAX_LENGTH).write(counts, sum(map(len, DOCUMENTS)), True)
        corpus = open_corpus(prefix)
        with pytest.raises(ValueError, match=r"x\.idx has other numbers .*--verify"):
            corpus.packed([0])
        with pytest.raises(ValueError, match=r"x\.idx: pointers\[0\]"):
            verify(prefix)


def test_counts_that_contradict_the_lengths_are_refused(prefix: Path) -> None:
    counts = open_corpus(prefix)._counts
    path, content = file_of(prefix), bytearray(file_of(prefix).read_bytes())
    ends = counts.ends.copy()
    ends[0] += 1  # one sequence of the second group in the first
    content[4096:] = ends.tobytes()
    struct.pack_into("<I", content, 72 + 16, zlib.crc32(content[4096:]))
    struct.pack_into("<I", content, 72 + 20, zlib.crc32(content[: 72 + 20]))
    path.write_bytes(content)
    corpus = open_corpus(prefix)
    assert corpus.note == ""
    for sequence in (0, int(ends[0]) - 1, int(ends[0])):
        with pytest.raises(ValueError, match="other numbers"):
            corpus.lengths([sequence])


def test_a_wrong_total_whose_pages_are_damaged_too_is_refused(prefix: Path) -> None:
    """Counting again finds another number of sequences than the stream was made for."""
    open_corpus(prefix)
    content = bytearray(file_of(prefix).read_bytes())
    total = struct.unpack_from("<q", content, 72 + 8)[0]
    struct.pack_into("<q", content, 72 + 8, total + 1)
    struct.pack_into("<I", content, 72 + 20, zlib.crc32(content[: 72 + 20]))
    content[4100] ^= 1
    file_of(prefix).write_bytes(content)
    corpus = open_corpus(prefix)
    assert corpus.num_sequences == total + 1
    with pytest.raises(ValueError, match="other numbers"):
        corpus.lengths([total])


def test_half_a_file_is_left_to_its_writer_until_it_is_abandoned(prefix: Path) -> None:
    partial = Path(f"{file_of(prefix)}.partial")
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    corpus = open_corpus(prefix)
    assert read(corpus) == by_hand(DOCUMENTS)
    assert "validated" in corpus.note
    assert partial.read_bytes() == b"half"
    assert not file_of(prefix).exists()
    os.utime(partial, (0, time.time() - 3600))
    assert read(open_corpus(prefix)) == by_hand(DOCUMENTS)
    assert [path.name for path in partial.parent.iterdir()] == [str(MAX_LENGTH)]


def test_where_nothing_can_be_written_everything_goes_on(prefix: Path) -> None:
    file_of(prefix).parent.write_text("a file where the folder should be")
    for _ in range(2):
        corpus = open_corpus(prefix)
        assert "validated and counted" in corpus.note
        assert "cannot be written" in corpus.note
        assert read(corpus) == by_hand(DOCUMENTS)


def test_a_folder_where_the_file_should_be(prefix: Path) -> None:
    file_of(prefix).mkdir(parents=True)
    corpus = open_corpus(prefix)
    assert "cannot be written" in corpus.note
    assert read(corpus) == by_hand(DOCUMENTS)
    assert list(file_of(prefix).parent.iterdir()) == [file_of(prefix)]


@pytest.fixture
def full_disk(prefix: Path) -> Iterator[Path]:
    """4 KiB for PREFIX.cache."""
    folder = file_of(prefix).parent
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(prefix: Path, full_disk: Path) -> None:
    corpus = open_corpus(prefix)
    assert "cannot be written (No space left on device)" in corpus.note
    assert read(corpus) == by_hand(DOCUMENTS)
    assert list(full_disk.iterdir()) == []


OPEN = """
import hashlib, sys
import numpy as np
from data import counts_file
from data.corpus import Corpus
counts_file.SMALLEST = 0
print("ready", flush=True)
sys.stdin.readline()
corpus = Corpus.open(sys.argv[1], max_length=12)
print(hashlib.sha256(corpus.packed(np.arange(corpus.num_sequences))[0]).hexdigest())
"""


def test_many_processes_open_it_at_the_same_time(prefix: Path) -> None:
    write_corpus(prefix, random_documents(30_000, longest=20))
    command = [sys.executable, "-c", OPEN, str(prefix)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        found = set()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            found.add(process.stdout.read().strip())
    corpus = open_corpus(prefix)
    assert corpus.note == ""
    assert found == {hashlib.sha256(corpus.packed(np.arange(corpus.num_sequences))[0]).hexdigest()}
    assert [path.name for path in file_of(prefix).parent.iterdir()] == [str(MAX_LENGTH)]
