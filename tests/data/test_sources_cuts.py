"""However a file is cut into parts, they give the same documents as the file: for every cut of nasty files, and any file."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.sources import BadRecord
from tests.data.source_files import BY_HAND, as_csv, as_wiki, planned, read_parts, write

NASTY_TEXTS = [
    b"",
    b"\n",
    b"\r\n\r\n",
    b" \n\t\n",
    b"a",
    b"a\n\nb",
    b"a\r\n\r\nb\r\n",
    b"\n\n a\nb \n \t\r\n\n\nc\n\n",
    b"a\n\n\n\n\nb\n\n\n",
    b"\xef\xbb\xbf\n\na\n\nb",
    b"\xef\xbb\xbfa\n \nb",
    b"\xef\xbb\xbf \n\n",
    "ü\n\n東京\n😀😀\n\u3000\n\n\u00a0\n\nend".encode(),
    b"a\rb\r\r\n\n\rc\n\x0b\x0c\nd\x00\n\ne",
    b"one\n\nGr\xfc\n\xff\n\n\xed\xa0\x80\n\ntwo",
    b"a" * 20 + b"\n\n" + b"b" * 20 + b"\n" + b" " * 20 + b"\n" + b"c" * 20,
]
RECORDS = [
    b'{"text": "a"}',
    b"",
    b" \r",
    '{"text": "ü東😀"}'.encode(),
    b'{"text": "c"}\r',
    b'{"text": "',
    b"\xff",
    b"\xc2\xa0",
    b"[]",
    b'{"text": " "}',
    rb'{"text": "\ud800"}',
]
NASTY_JSONL = [
    b"\n".join(RECORDS),
    b"\n".join(RECORDS) + b"\n",
    b"\n\n".join(RECORDS[::-1]),
    b"\xef\xbb\xbf" + RECORDS[0] + b"\r\n" * 3 + RECORDS[3],
    RECORDS[3],
]


def read_at(path: str, part_bytes: int) -> list[list[str | int]]:
    parts = read_parts(planned([path], part_bytes))
    return [[d.line if isinstance(d, BadRecord) else d for d in part] for part in parts]


def check_every_cut(path: str, expected: list[str | int], part_sizes: range) -> None:
    for part_bytes in part_sizes:
        assert [document for part in read_at(path, part_bytes) for document in part] == expected, part_bytes


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".txt", content) for content in NASTY_TEXTS] + [(".jsonl", content) for content in NASTY_JSONL],
)
def test_every_cut_of_a_nasty_file(
    tmp_path: Path, suffix: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(BY_HAND[suffix](content))
    path = write(tmp_path / f"a{suffix}", content)
    check_every_cut(path, expected, range(1, len(content) + 2))
    check_every_cut(write(tmp_path / f"a{suffix}.gz", content), expected, range(1, len(content) + 2))
    # The same with buffers that end everywhere.
    for size in (1, 2, 3, 5):
        monkeypatch.setattr("data.sources.lines._BLOCK_BYTES", size)
        monkeypatch.setattr("data.sources.files._SCAN_BYTES", size)
        check_every_cut(path, expected, range(1, len(content) + 2, size))


def test_a_document_is_in_the_part_of_its_first_byte(tmp_path: Path) -> None:
    content = b"aa\nbb\n\n\ncc\n\n" + b"dd"
    path = write(tmp_path / "a.txt", content)
    starts = {"aa\nbb": 0, "cc": 8, "dd": 12}
    for part_bytes in range(1, len(content) + 1):
        parts = read_at(path, part_bytes)
        assert len(parts) == -(-len(content) // part_bytes)
        for number, part in enumerate(parts):
            assert part == [text for text, start in starts.items() if start // part_bytes == number]


PIECES = [b"a", b"b ", " ü".encode(), "\u3000".encode(), b"\xff", b"\r", b" ", b"\n", b"\n", b"\n\n", b"\r\n", b"\t\n"]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(st.sampled_from([*PIECES, *RECORDS]), max_size=30), part_bytes=st.integers(1, 60))
@pytest.mark.parametrize("suffix", BY_HAND)
def test_any_file_with_any_parts(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, pieces: list[bytes], part_bytes: int
) -> None:
    content = b"".join(pieces)
    folder = tmp_path_factory.getbasetemp() / "any"
    expected = list(BY_HAND[suffix](content))
    for name in (f"a{suffix}", f"a{suffix}.bz2"):
        check_every_cut(write(folder / name, content), expected, range(part_bytes, part_bytes + 1))


@pytest.mark.parametrize("compression", ["", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "wiki"])
def test_every_cut_of_what_is_read_from_its_start(tmp_path: Path, kind: str, compression: str) -> None:
    texts = ["a\nb", 'c "d"\te,f\n\n"g', "h", "ü\n" * 5 + "i", "j", "k\n\nl"]
    if kind == "wiki":
        content = as_wiki(texts).encode()
        name = f"wiki_12{compression}"
    else:
        content = as_csv(texts, delimiter="," if kind == "csv" else "\t").encode()
        name = f"a.{kind}{compression}"
    path = write(tmp_path / name, content)
    check_every_cut(path, list(texts), range(1, len(content) + 2))


def test_cuts_of_a_file_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    texts = ["\n".join("x" * generator.randrange(1, 40) for _ in range(generator.randrange(1, 9))) for _ in range(400)]
    content = "".join(text + "\n" * generator.randrange(2, 5) for text in texts).encode()
    path = write(tmp_path / "a.txt", content)
    monkeypatch.setattr("data.sources.lines._BLOCK_BYTES", 64)
    for part_bytes in (100, 1_000, 9_999):
        parts = read_at(path, part_bytes)
        assert [document for part in parts for document in part] == texts
        assert len(parts) == -(-len(content) // part_bytes)
