"""Parquet and Arrow files: reached by row groups and record batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from data.sources.columns import ROWS_AT_ONCE, Rows, column_named
from data.sources.files import StoredFile
from data.sources.item import Documents, Item, Meter, Part, Piece, pass_over
from data.sources.record import Place

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_FORMATS = (".parquet", ".arrow")


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A row group or record batch: its rows, and their bytes."""

    rows: int
    stored_bytes: int
    input_bytes: int


def plan_table(file: StoredFile, text_field: str, part_bytes: int) -> list[Piece | Item]:
    """Runs of row groups or record batches of about part_bytes as pieces; a larger one is an item of several parts.

    Errors: ValueError for a damaged file or one without the column.
    """
    plan: list[Piece | Item] = []
    first = row = 0
    chunks = _chunks(file, text_field)
    while first < len(chunks):
        last, size = first + 1, chunks[first].input_bytes
        while last < len(chunks) and size + chunks[last].input_bytes <= part_bytes:
            size += chunks[last].input_bytes
            last += 1
        rows = sum(chunk.rows for chunk in chunks[first:last])
        table = _TableRange(file, text_field, first, last, row, rows)
        name = f"{file.path}, rows {row + 1:,} to {row + rows:,}"
        identity = f"{file.identity} {row} {row + rows}"
        stored = sum(chunk.stored_bytes for chunk in chunks[first:last])
        num_parts = max(1, min(rows, round(size / part_bytes)))
        if num_parts == 1:
            piece = TablePiece(name=name, size=stored, identity=identity, input_bytes=size, table=table)
            plan.append(piece)
        else:
            plan.append(TableStream(name=name, size=stored, identity=identity, table=table, num_parts=num_parts))
        first, row = last, row + rows
    return plan


@dataclass(frozen=True)
class _TableRange:
    """Row groups or record batches [first, last) of a file."""

    file: StoredFile
    text_field: str
    first: int
    last: int
    first_row: int
    rows: int

    @contextmanager
    def open(self) -> Iterator[Rows]:
        with self.file.open() as file:
            yield Rows(self._arrays(file), Place(self.file.path, lambda: self.first_row))

    def _arrays(self, file: BinaryIO) -> Iterator["pa.Array"]:
        with _named_errors(self.file.path, self.first_row):
            yield from _parquet_arrays(file, self) if self.file.path.endswith(".parquet") else _arrow_arrays(self)


@dataclass(frozen=True, kw_only=True)
class TablePiece(Piece):
    """Rows that are one part, or less."""

    table: _TableRange

    def documents(self, on_bytes: Callable[[int], None]) -> Documents:
        with self.table.open() as rows:
            yield from rows.documents(self.table.rows)
            rows.finish()
        on_bytes(self.size)


@dataclass(frozen=True, kw_only=True)
class TableStream(Item):
    """A row group or record batch that is larger than a part: parts of equally many rows."""

    table: _TableRange
    num_parts: int

    def parts(self, is_wanted: Callable[[int], bool], on_bytes: Callable[[int], None]) -> Iterator[Part]:
        meter = Meter(self.size, on_bytes)
        with self.table.open() as rows:
            for number in range(self.num_parts):
                start, end = (self.table.rows * n // self.num_parts for n in (number, number + 1))
                if is_wanted(number):
                    documents = rows.documents(end - start)
                    yield number, documents
                    pass_over(documents)
                else:
                    rows.skip(end - start)
                    yield number, None
                meter.advance_to(self.size * (number + 1) // self.num_parts)
            rows.finish()


def _chunks(file: StoredFile, text_field: str) -> list[_Chunk]:
    if file.bytes == 0:
        raise ValueError(f"'{file.path}' is empty. Is the file complete?")
    with file.open() as stream, _named_errors(file.path, 0):
        if file.path.endswith(".arrow"):
            return _arrow_chunks(file, text_field)
        from pyarrow.parquet import ParquetFile

        parquet = ParquetFile(stream)
        column_named(parquet.schema_arrow, text_field, file.path)
        groups = [parquet.metadata.row_group(number) for number in range(parquet.metadata.num_row_groups)]
        # Of all columns: asked for those of one, Arrow ends the process where they are damaged. Counts may be wrong as well.
        sizes = [max(0, group.total_byte_size) for group in groups]
        stored_share = file.bytes / max(1, sum(sizes))
        return [
            _Chunk(rows=max(0, group.num_rows), stored_bytes=int(size * stored_share), input_bytes=size)
            for group, size in zip(groups, sizes, strict=True)
        ]


def _parquet_arrays(file: BinaryIO, table: _TableRange) -> Iterator["pa.Array"]:
    from pyarrow.parquet import ParquetFile

    # Buffered: without it a whole row group's column is read at once.
    parquet = ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
    groups = list(range(table.first, table.last))
    for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[table.text_field], use_threads=False):
        yield batch.column(0)


def _arrow_chunks(file: StoredFile, text_field: str) -> list[_Chunk]:
    with _arrow_batches(file, 0, None) as (schema, batches):
        column_named(schema, text_field, file.path)
        index = schema.get_field_index(text_field)
        found = []
        for batch in batches:
            text_bytes = batch.column(index).get_total_buffer_size()
            found.append(_Chunk(rows=batch.num_rows, stored_bytes=text_bytes, input_bytes=text_bytes))
        return found


def _arrow_arrays(table: _TableRange) -> Iterator["pa.Array"]:
    with _arrow_batches(table.file, table.first, table.last) as (schema, batches):
        index = schema.get_field_index(table.text_field)
        for batch in batches:
            yield batch.column(index)


@contextmanager
def _arrow_batches(
    file: StoredFile, first: int, last: int | None
) -> Iterator[tuple["pa.Schema", Iterator["pa.RecordBatch"]]]:
    """Record batches [first, last) of either format, mapped: a stream's other batches are passed over, mostly unread."""
    import pyarrow as pa

    with pa.memory_map(file.path) as mapped:
        if mapped.read(6) == b"ARROW1":
            with pa.ipc.open_file(mapped) as reader:
                yield reader.schema, map(reader.get_batch, range(reader.num_record_batches)[first:last])
            return
        mapped.seek(0)
        with pa.ipc.open_stream(mapped) as reader:
            yield reader.schema, islice(reader, first, last)
        # Zeros end a stream wherever they stand, so that damage can look like its end.
        if last is None and mapped.tell() < file.bytes:
            raise ValueError(f"'{file.path}' has more behind its end, at byte {mapped.tell()}. Is the file complete?")


@contextmanager
def _named_errors(path: str, row: int) -> Iterator[None]:
    """What Arrow raises for a damaged file, with the file's name."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}, after row {row}: cannot be read ({reason}). Is the file complete?") from error
