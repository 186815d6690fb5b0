"""Every suffix gives the same documents; everything bad is refused with file, line and reason."""

import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data.sources import InputProgress, read_documents

TEXTS = ["First document.\nIts second line.", "Zweites: Grüße, 東京 😀", "third"]
AS_TEXT = "\n" + TEXTS[0] + "\n\n \n" + TEXTS[1] + "\r\n\n" + TEXTS[2]
AS_JSONL = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)) + "\n"

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def write(path: Path, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return str(path)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize(("suffix", "content"), [(".txt", AS_TEXT), (".jsonl", AS_JSONL)])
def test_every_suffix(tmp_path: Path, suffix: str, content: str, compression: str) -> None:
    path = write(tmp_path / f"a.b{suffix}{compression}", content)
    assert list(read_documents([path, path])) == TEXTS * 2


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_several_compressed_streams_in_one_file(tmp_path: Path, compression: str) -> None:
    half = len(AS_JSONL.splitlines(keepends=True)[0])
    first, second = AS_JSONL[:half].encode(), AS_JSONL[half:].encode()
    path = tmp_path / f"a.jsonl{compression}"
    path.write_bytes(COMPRESS[compression](first) + COMPRESS[compression](second))
    assert list(read_documents([str(path)])) == TEXTS


def test_a_long_compressed_file(tmp_path: Path) -> None:
    """Longer than every buffer on the way."""
    texts = [f"{number} " * 200 for number in range(3000)]
    path = write(tmp_path / "a.jsonl.zst", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert list(read_documents([path])) == texts


def test_another_field_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + b'{"body": "hello"}')
    assert list(read_documents([path], text_field="body")) == ["hello"]


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    assert list(read_documents([write(tmp_path / "a.txt", ""), write(tmp_path / "b.jsonl.zst", "")])) == []


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, AS_JSONL) for name in ("a.jsonl", "b.jsonl.xz", "c.jsonl.zst")]
    progress = InputProgress(paths)
    seen = [progress.bytes_read for _ in read_documents(paths, progress=progress)]
    assert seen == sorted(seen)
    assert progress.bytes_read == progress.total_bytes == sum(Path(path).stat().st_size for path in paths)


@pytest.mark.parametrize("name", ["a.csv", "a", "a.gz", "a.jsonl.bz2", "a.txt.gz.xz"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "text")
    with pytest.raises(ValueError, match=rf"{re.escape(path)}' has no known suffix: \.txt or \.jsonl"):
        list(read_documents([path]))


def test_a_missing_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    documents = read_documents([write(tmp_path / "a.txt", "text"), str(tmp_path / "b.txt")])
    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        next(documents)


BAD_RECORDS = {
    "not JSON": ('{"text": "open', "not valid JSON"),
    "no field": ('{"id": 1, "body": "x"}', r"no field 'text' \(found: id, body\).*--text_field"),
    "no object": ('["text"]', r"no field 'text' \(found: list\)"),
    "null": ('{"text": null}', "'text' is NoneType, not text"),
    "half a surrogate pair": (r'{"text": "a \ud83d b"}', r"half a surrogate pair, \\ud83d"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_bad_record_is_named(tmp_path: Path, case: str) -> None:
    record, message = BAD_RECORDS[case]
    path = write(tmp_path / "a.jsonl.gz", '{"text": "fine"}\n' + record + "\n")
    with pytest.raises(ValueError, match=rf"{re.escape(path)}, line 2: .*{message}"):
        list(read_documents([path]))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.xz"])
def test_bad_utf8_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b'{"text": "fine"}\n{"text": "Gr\xfc\xdfe"}\n')
    with pytest.raises(ValueError, match=rf"{re.escape(path)}, line 2: not UTF-8 .* at byte 12"):
        list(read_documents([path]))


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, compression: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    content = COMPRESS[compression]((AS_JSONL * 50).encode())
    path.write_bytes(content[:-20] if damage == "truncated" else b"not compressed at all" + content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, after line \d+: cannot be read"):
        list(read_documents([str(path)]))


def test_a_text_file_without_blank_lines_is_refused_when_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.sources._LONGEST_DOCUMENT", 30)
    path = write(tmp_path / "a.txt", "0123456789\n" * 2 + "\n" + "0123456789\n" * 3)
    with pytest.raises(ValueError, match=r"line 6: a document of more than 30 characters.*blank lines"):
        list(read_documents([path]))
