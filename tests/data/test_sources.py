"""Every format and compression gives the same documents; what is broken is reported with file, line and reason."""

import itertools
import json
import os
import pickle
import random
import re
from pathlib import Path

import pytest

from data.sources import REASONS, BadRecord, SourceOptions, plan_inputs
from tests.data.source_files import COMPRESS, as_csv, as_jsonl, as_wiki, planned, read, read_parts, write

TEXTS = ["First document.\nIts second line.", "Zweites: Grüße, 東京 😀", 'third, "quoted"']
FORMATS = {
    ".txt": "\n" + TEXTS[0] + "\n\n \n" + TEXTS[1] + "\r\n\n" + TEXTS[2],
    ".jsonl": as_jsonl(TEXTS) + "\n",
    ".ndjson": as_jsonl(TEXTS),
    ".json": as_jsonl(TEXTS),
    ".csv": as_csv(TEXTS),
    ".tsv": as_csv(TEXTS, delimiter="\t"),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("part_bytes", [1 << 20, 20, 7])
def test_every_suffix(tmp_path: Path, suffix: str, compression: str, part_bytes: int) -> None:
    path = write(tmp_path / f"a.b{suffix}{compression}", FORMATS[suffix])
    assert read([path, path], part_bytes) == TEXTS * 2
    marked = write(tmp_path / f"marked{suffix}{compression}", b"\xef\xbb\xbf" + FORMATS[suffix].lstrip().encode())
    assert read([marked], part_bytes) == TEXTS


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("mode", ["blocks", "--json"])
@pytest.mark.parametrize("part_bytes", [1 << 20, 20, 7])
def test_the_output_of_wikiextractor(tmp_path: Path, mode: str, compression: str, part_bytes: int) -> None:
    texts = ["Title\n\nFirst paragraph.\n\nSecond & last.", "Only a title"]
    content = as_wiki(texts) if mode == "blocks" else as_jsonl(texts)
    assert read([write(tmp_path / f"AA/wiki_00{compression}", content)], part_bytes) == texts


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
def test_several_compressed_streams_in_one_file(tmp_path: Path, compression: str) -> None:
    content = FORMATS[".jsonl"].encode()
    path = tmp_path / f"a.jsonl{compression}"
    path.write_bytes(b"".join(COMPRESS[compression](part) for part in (content[:60], content[60:70], content[70:])))
    assert read([path], part_bytes=25) == TEXTS


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".txt", ".txt.gz", ".csv.bz2"])
def test_files_longer_than_every_buffer(tmp_path: Path, suffix: str) -> None:
    generator = random.Random(1)
    texts = [f"{number} {generator.randbytes(400).hex()}" for number in range(2000)]
    as_format = {".jsonl": as_jsonl, ".txt": "\n\n".join, ".csv": as_csv}["." + suffix.split(".")[1]]
    parts = read_parts(planned([write(tmp_path / f"a{suffix}", as_format(texts))], part_bytes=1 << 20))
    assert list(itertools.chain(*parts)) == texts
    assert len(parts) == 2


def test_parts_have_about_the_bytes_that_were_asked_for(tmp_path: Path) -> None:
    texts = [random.Random(number).randbytes(100).hex() for number in range(500)]
    for name, content in (("a.jsonl", as_jsonl(texts)), ("a.jsonl.xz", as_jsonl(texts)), ("a.csv", as_csv(texts))):
        parts = read_parts(planned([write(tmp_path / name, content)], part_bytes=10_000))
        assert len(parts) == -(-len(content) // 10_000)
        assert list(itertools.chain(*parts)) == texts
        assert all(8_000 < sum(len(str(text)) for text in part) < 11_000 for part in parts[:-1])


def test_another_field(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.jsonl", as_jsonl(["hello"], "body")),
        write(tmp_path / "a.csv", as_csv(["you"], "body")),
    ]
    assert read(paths, text_field="body") == ["hello", "you"]
    with pytest.raises(ValueError, match="--text_field is empty"):
        read(paths, text_field="")


def test_empty_files_have_no_documents(tmp_path: Path) -> None:
    names = ["a.txt", "b.jsonl.zst", "c.csv", "d.tsv.gz", "wiki_00", "e.json"]
    assert read([write(tmp_path / name, "") for name in names]) == []


BAD_LINES = {
    '{"text": "open': ("bad_json", "Unterminated string"),
    '{"text": "a"} {}': ("bad_json", "Extra data"),
    "[" * 100_000: ("bad_json", "recursion"),
    '{"id": 1, "body": "x"}': ("missing_field", "no field 'text' in fields id, body"),
    '{"\\u0007\\ud800": 1}': ("missing_field", r"no field 'text' in fields \\u0007\\ud800"),
    '["text"]': ("missing_field", "no field 'text' in list"),
    '{"text": null}': ("not_text", "'text' is NoneType"),
    '{"text": 5}': ("not_text", "'text' is int"),
    '{"text": ""}': ("empty", "no text"),
    '{"text": " \\n\\u00a0"}': ("empty", "no text"),
    r'{"text": "a \ud83d b"}': ("surrogate", r"\\ud83d at character 2"),
    '{"text": "Gr\udcfc\udcdfe"}': ("bad_utf8", "at byte 12"),
}


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("part_bytes", [1 << 20, 10])
def test_a_bad_json_record_is_reported_and_passed_over(
    tmp_path: Path, line: str, compression: str, part_bytes: int
) -> None:
    reason, detail = BAD_LINES[line]
    content = '{"text": "fine"}\n\n' + line + "\n \r\n" + '{"text": "as well"}\r\n'
    path = write(tmp_path / f"a.jsonl{compression}", content.encode("utf-8", "surrogateescape"))
    first, bad, last = read([path], part_bytes if len(line) < 1000 else 1 << 16)
    assert (first, last) == ("fine", "as well")
    assert isinstance(bad, BadRecord)
    assert (bad.file, bad.line, bad.reason) == (path, 3, reason)
    assert bad.reason in REASONS
    assert re.search(detail, bad.detail)
    assert bad.detail.isprintable()
    assert len(bad.detail) < 250


def test_bad_text_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("documents", "lines", "record", "records"):
        monkeypatch.setattr(f"data.sources.{module}.LONGEST_DOCUMENT", 30, raising=False)
    content = (
        b"fine\n\none\nGr\xfc\xdfe\n\n" + b"0123456789\n" * 3 + b"\n" + "\u3000\n\n".encode() + b"x" * 90 + b"\n\nlast"
    )
    path = write(tmp_path / "a.txt", content)
    for part_bytes in (1 << 20, 40, 10, 1):
        first, not_utf8, too_long, empty, long_line, last = read([path], part_bytes)
        assert (first, last) == ("fine", "last")
        assert not_utf8 == BadRecord(path, 4, "bad_utf8", not_utf8.detail)
        assert "at byte 2" in not_utf8.detail
        assert too_long == BadRecord(path, 6, "too_long", "a document of more than 30 bytes")
        assert empty == BadRecord(path, 10, "empty", "a document of white space")
        assert long_line == BadRecord(path, 12, "too_long", "a document of more than 30 bytes")


def test_a_line_is_never_held_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("documents", "lines", "record", "records"):
        monkeypatch.setattr(f"data.sources.{module}.LONGEST_DOCUMENT", 100, raising=False)
    monkeypatch.setattr("data.sources.lines._BLOCK_BYTES", 16)
    lines = [json.dumps({"text": "y" * length}) for length in (5, 87, 88, 89, 90, 1000, 3)]
    for name in ("a.jsonl", "a.jsonl.xz"):
        path = write(tmp_path / name, "\n".join(lines))
        for part_bytes in (1 << 20, 150, 64, 1):
            found = read([path], part_bytes)
            assert [len(d) if isinstance(d, str) else (d.line, d.reason) for d in found] == [
                *(5, 87, 88, (4, "too_long"), (5, "too_long"), (6, "too_long"), 3)
            ]
        # What follows belongs to where it begins in the file, not in what was kept of it.
        assert [len(part) for part in read_parts(planned([path], 200))] == [3, 2, 1, 0, 0, 0, 0, 1]


def test_broken_blocks_of_wikiextractor(tmp_path: Path) -> None:
    content = '\n<doc id="1">\none\n</doc>\nlost\nwords\n\n<doc id="2">\n\n</doc>\n</doc>\n'
    content += '<doc id="3">\ncut\n<doc id="4">\nGr'
    path = write(tmp_path / "wiki_07", content.encode() + b"\xfc\n</doc>\n" + b'<doc id="5">\nend')
    expected = [
        (5, "bad_block"),
        (9, "empty"),
        (11, "bad_block"),
        (12, "bad_block"),
        (15, "bad_utf8"),
        (17, "bad_block"),
    ]
    for part_bytes in (1 << 20, 40, 13, 4, 1):
        first, *bad = read([path], part_bytes)
        assert first == "one"
        assert [(record.line, record.reason) for record in bad if isinstance(record, BadRecord)] == expected


def test_bad_rows_of_a_table_of_values(tmp_path: Path) -> None:
    content = b'id,text,x\n1,"two\nlines",\n\n2\n3,,x\n4,Gr\xfc\xdfe\n5,a\rb\n6,"say ""hi""",\n7,\xc3\xbc,\xfc\n'
    path = write(tmp_path / "a.csv", content)
    for part_bytes in (1 << 20, 9, 1):
        first, short, empty, not_utf8, bad_row, quoted, last = read([path], part_bytes)
        assert (first, quoted, last) == ("two\nlines", 'say "hi"', "ü")
        assert short == BadRecord(path, 5, "missing_field", "1 columns, 'text' is the 2.")
        assert isinstance(empty, BadRecord)
        assert (empty.line, empty.reason) == (6, "empty")
        assert isinstance(not_utf8, BadRecord)
        assert (not_utf8.line, not_utf8.reason) == (7, "bad_utf8")
        assert isinstance(bad_row, BadRecord)
        assert (bad_row.line, bad_row.reason) == (8, "bad_row")


def test_long_fields_of_a_table_of_values(tmp_path: Path) -> None:
    text = "word " * 100_000  # the csv module's own limit is 131,072
    assert read([write(tmp_path / "a.csv.gz", as_csv([text, "b"]))], 1 << 16) == [text, "b"]


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, suffix: str, compression: str, damage: str) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    content = COMPRESS[compression]((FORMATS[suffix] * 5000).encode())
    path.write_bytes(content[:-20] if damage == "truncated" else b"not compressed at all" + content)
    for part_bytes in (1 << 20, 1 << 10):
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, after line \d+: cannot be read"):
            read([path], part_bytes)


def test_a_table_without_the_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "id\tbody\n1\thello\n")
    with pytest.raises(
        ValueError, match=rf"{re.escape(path)}, line 1: no column 'text' \(found: id, body\).*--text_field"
    ):
        read([path])


def test_a_file_that_changes_after_it_was_planned(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "before")
    items = planned([path])
    write(path, "afterwards")
    with pytest.raises(ValueError, match=rf"'{re.escape(str(path))}' was changed"):
        read_parts(items)
    assert [item.identity for item in items] != [item.identity for item in planned([path])]


def test_small_files_are_grouped(tmp_path: Path) -> None:
    for number in range(300):
        write(tmp_path / f"AA/wiki_{number:03}", as_wiki([f"Title {number}\n\n" + "text " * 18]))
    items = planned([tmp_path], part_bytes=2_000)
    sizes = [item.size for item in items]
    assert sum(sizes) == sum(path.stat().st_size for path in (tmp_path / "AA").iterdir())
    assert max(sizes) <= 2_000
    assert min(sizes[:-1]) > 1_500
    assert items[0].name == f"{tmp_path}/AA/wiki_000 and 11 more"
    parts = read_parts(items)
    assert len(parts) == len(items)
    assert [str(text).split("\n")[0] for part in parts for text in part] == [f"Title {n}" for n in range(300)]
    assert len({item.identity for item in items}) == len(items)
    os.utime(tmp_path / "AA/wiki_005", ns=(1, 1))
    assert [a.identity == b.identity for a, b in zip(items, planned([tmp_path], 2_000), strict=True)][:2] == [
        False,
        True,
    ]


def test_items_travel_to_other_processes(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"a{suffix}", content) for suffix, content in FORMATS.items()]
    paths += [write(tmp_path / f"b{suffix}.xz", content) for suffix, content in FORMATS.items()]
    items = planned(paths, part_bytes=40)
    assert read_parts(pickle.loads(pickle.dumps(items))) == read_parts(items)


def test_documents_that_nobody_reads_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", as_jsonl([f"text {n}" for n in range(100)]))
    (item,) = planned([path], part_bytes=500)
    firsts = [next(documents) for _, documents in item.parts(lambda _: True, lambda _: None) if documents]
    assert firsts == [part[0] for part in read_parts([item])]
    assert len(firsts) > 5


def test_nothing_to_read() -> None:
    with pytest.raises(ValueError, match="--input is empty"):
        plan_inputs([], SourceOptions(), 1)
