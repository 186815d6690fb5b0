"""A file that changes under its memory map: refused before it is read, and attributed when it is too late."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.batching import Corpus
from data.mapped_file import MappedFile, disk_reads
from data.verify import verify
from tests.data.helpers import random_documents, write_corpus
from tests.launch import ROOT


def test_a_shrunk_or_grown_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(200)))
    mapped = MappedFile(path)
    assert mapped.bytes.tolist() == list(range(200))
    mapped.check()
    for size in (100, 300):
        os.truncate(path, size)
        with pytest.raises(ValueError, match=rf"{path} had 200 bytes .* has {size} now.*--verify"):
            mapped.check()
    os.truncate(path, 200)
    mapped.check()


def test_a_replaced_file_goes_on_being_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "y").write_bytes(b"other")
    mapped = MappedFile(tmp_path / "x")
    (tmp_path / "y").replace(tmp_path / "x")
    mapped.check()
    assert mapped.bytes.tobytes() == b"old"


def drop_from_memory(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_asking_for_pages_changes_nothing(tmp_path: Path) -> None:
    """Stretches of many pages, none, over the end and beyond it, and of an empty file."""
    content = np.random.default_rng(0).bytes(300_001)
    starts, stops = np.array([0, 5, 4096, 290_000, 300_001, 2**40]), np.array([5, 5, 90_000, 400_000, 300_002, 2**41])
    for name, expected in (("x", content), ("empty", b"")):
        (tmp_path / name).write_bytes(expected)
        drop_from_memory(tmp_path / name)
        mapped = MappedFile(tmp_path / name)
        for is_random in (True, False):
            mapped.expect_random_reads(is_random)
            mapped.prefetch(starts, stops)
        assert mapped.bytes.tobytes() == expected


def test_waiting_for_the_disk_is_counted(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    drop_from_memory(tmp_path / "x")
    mapped, before = MappedFile(tmp_path / "x"), disk_reads()
    assert mapped.bytes.max() == 0
    cold = disk_reads() - before
    assert mapped.bytes.max() == 0
    assert disk_reads() == before + cold
    if cold == 0:
        pytest.skip(f"{tmp_path} does not leave memory")


def test_an_empty_file_is_mapped_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    mapped = MappedFile(tmp_path / "x")
    mapped.check()
    assert (mapped.size, len(mapped.bytes)) == (0, 0)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_corpus_cut_short_while_it_is_read(tmp_path: Path, suffix: str) -> None:
    write_corpus(tmp_path / "x", random_documents(5000, longest=60))
    corpus = Corpus.open(tmp_path / "x", max_length=32)
    everything = np.arange(corpus.num_sequences)
    corpus.packed(everything)
    os.truncate(f"{tmp_path / 'x'}{suffix}", 34)  # every page but the first is gone: reading it would be SIGBUS
    with pytest.raises(ValueError, match=rf"x\{suffix} had \d+ bytes when it was opened and has 34 now"):
        corpus.packed(everything)


def test_an_index_rewritten_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Same size, other numbers: nothing outside the .bin is read."""
    write_corpus(tmp_path / "x", random_documents(50, longest=60))
    corpus = Corpus.open(tmp_path / "x", max_length=32)
    with (tmp_path / "x.idx").open("r+b") as file:
        file.seek(34)
        file.write(b"\xff\xff\xff\x7f" * 50)
    with pytest.raises(ValueError, match=r"x\.idx has other numbers than when it was opened"):
        corpus.packed(np.arange(corpus.num_sequences))


CUT_BEFORE_READING = """
import faulthandler, os, sys, threading, time
from pathlib import Path
from data.mapped_file import MappedFile, report_bus_errors

faulthandler.enable()  # as PYTHONFAULTHANDLER does: ours comes after it
report_bus_errors()
path, thread = Path(sys.argv[1]), sys.argv[2]
path.write_bytes(bytes(1 << 20))
mapped = MappedFile(path)

is_waiting = threading.Event()

def cut_and_read():
    is_waiting.wait()
    mapped.check()
    os.truncate(path, 100)
    print(mapped.bytes.sum())

def wait_for_the_other():
    is_waiting.set()
    while True:
        time.sleep(0.01)

if thread == "main":
    threading.Thread(target=wait_for_the_other, daemon=True).start()
    cut_and_read()
else:
    threading.Thread(target=cut_and_read, daemon=True).start()
    wait_for_the_other()
"""


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_bus_error_ends_the_process_with_the_stacks_of_all_threads_and_code_7(tmp_path: Path, thread: str) -> None:
    command = [sys.executable, "-c", CUT_BEFORE_READING, str(tmp_path / "x"), thread]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 7, ended
    assert "Bus error" in ended.stderr
    assert "in cut_and_read" in ended.stderr
    assert "in wait_for_the_other" in ended.stderr
    assert ended.stdout == ""


def test_verify_notices_a_file_cut_short_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "x", random_documents(500, longest=60))
    read_counts = "data.indexed_dataset.read_token_counts"

    def cut(*arguments: object) -> np.ndarray:
        os.truncate(tmp_path / "x.bin", 2)
        return np.zeros(120, dtype=np.int64)

    monkeypatch.setattr(read_counts, cut)
    with pytest.raises(ValueError, match=r"x\.bin had \d+ bytes"):
        verify(tmp_path / "x")
