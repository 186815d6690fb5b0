"""Parquet and Arrow files: any column of text, any parts, and damage that is named."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.sources import BadRecord
from tests.data.source_files import planned, read, read_parts

TEXTS = [random.Random(n).randbytes(50 + n % 7).hex() for n in range(1000)]


def write_parquet(path: Path, table: pa.Table, rows: int) -> None:
    pq.write_table(table, path, row_group_size=rows, write_page_checksum=True)


def write_arrow_file(path: Path, table: pa.Table, rows: int) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, rows)


def write_arrow_stream(path: Path, table: pa.Table, rows: int) -> None:
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, rows)


Writer = Callable[[Path, pa.Table, int], None]
WRITERS: dict[str, tuple[str, Writer]] = {
    "parquet": ("a.parquet", write_parquet),
    "arrow file": ("a.arrow", write_arrow_file),
    "arrow stream": ("a.arrow", write_arrow_stream),
}


@pytest.fixture(params=WRITERS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Writer]:
    name, writer = WRITERS[request.param]
    return tmp_path / name, writer


@pytest.mark.parametrize(("rows", "num_items"), [(1000, 1), (100, 10), (7, 10)])
def test_any_row_groups_and_parts(stored: tuple[Path, Writer], rows: int, num_items: int) -> None:
    path, writer = stored
    writer(path, pa.table({"id": range(1000), "text": TEXTS}), rows)
    for part_bytes, least, most in ((1 << 20, 1, 1), (16_000, 5, 14)):
        items = planned([path], part_bytes)
        parts = read_parts(items)
        assert [text for part in parts for text in part] == TEXTS
        assert least <= len(parts) <= most
        if part_bytes < 1 << 20:
            assert len(items) == 1 if num_items == 1 else len(items) > 4
            assert max(sum(len(str(text)) for text in part) for part in parts) < 20_000
        assert len({item.identity for item in items}) == len(items)


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()],
    ids=str,
)
def test_every_type_of_text(stored: tuple[Path, Writer], kind: pa.DataType) -> None:
    path, writer = stored
    writer(path, pa.table({"text": pa.array(["a", "Grüße", "a", None, ""]).cast(kind)}), 2)
    *texts, null, empty = read([path])
    assert texts == ["a", "Grüße", "a"]
    assert null == BadRecord(str(path), 4, "not_text", "null")
    assert empty == BadRecord(str(path), 5, "empty", "no text")


def test_text_that_is_not_utf8(stored: tuple[Path, Writer]) -> None:
    path, writer = stored
    values = pa.array([b"a", b"Gr\xfc", b"b"] * 300)
    column = pa.Array.from_buffers(pa.string(), len(values), values.buffers())
    writer(path, pa.table({"text": column}), 100)
    found = read([path], part_bytes=200)
    assert [text for text in found if isinstance(text, str)] == ["a", "b"] * 300
    bad = [record for record in found if isinstance(record, BadRecord)]
    assert [record.line for record in bad] == list(range(2, 900, 3))
    assert {record.reason for record in bad} == {"bad_utf8"}


def test_a_table_without_the_column_or_without_text(stored: tuple[Path, Writer]) -> None:
    path, writer = stored
    writer(path, pa.table({"id": [1], "body": [[1]]}), 1)
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(path))}: no column 'text' \(found: id, body\).*--text_field"
    ):
        planned([path])
    with pytest.raises(ValueError, match=r"column 'id' is int64, not text"):
        planned([path], text_field="id")
    with pytest.raises(ValueError, match=r"column 'body' is list.*, not text"):
        planned([path], text_field="body")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "garbage": lambda content: b"nothing of the kind" * 9,
    "truncated": lambda content: content[:-9000],
    "overwritten": lambda content: content[: len(content) // 2] + bytes(2000) + content[len(content) // 2 + 2000 :],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tables_are_named(stored: tuple[Path, Writer], damage: str) -> None:
    path, writer = stored
    writer(path, pa.table({"text": TEXTS}), 100)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    if damage == "overwritten" and writer is write_arrow_file:
        pytest.skip("what is neither compressed nor has a checksum cannot tell")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*Is the file complete") as caught:
        read([path], 16_000)
    assert "\n" not in str(caught.value)


def test_small_tables_are_grouped_with_other_files(tmp_path: Path) -> None:
    for number in range(20):
        write_parquet(tmp_path / f"{number:02}.parquet", pa.table({"text": TEXTS[number : number + 1]}), 1)
    (tmp_path / "20.txt").write_text("last")
    (item,) = planned([tmp_path])
    assert read_parts([item]) == [[*TEXTS[:20], "last"]]


def test_a_name_of_a_column_that_is_not_utf8(stored: tuple[Path, Writer]) -> None:
    path, writer = stored
    writer(path, pa.table({"id#": [1], "text": ["a"]}), 1)
    path.write_bytes(path.read_bytes().replace(b"id#", b"id\xff"))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*cannot be read"):
        read([path])
