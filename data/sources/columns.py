"""A column of Arrow arrays -> documents, and a run of arrays cut at any row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from data.sources.item import Documents
from data.sources.record import LONGEST_DOCUMENT, Place, not_utf8, printable

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 512
"""Rows that are turned into Python's strings together."""


def column_named(schema: "pa.Schema", text_field: str, source: str) -> None:
    """Errors: ValueError where there is no such column, or one that holds no text."""
    import pyarrow as pa

    if schema.names.count(text_field) != 1:
        raise ValueError(
            f"{source}: no column '{text_field}' (found: {printable(', '.join(schema.names))}). "
            "Name the right one with --text_field"
        )
    found = kind = schema.field(text_field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    if kind not in texts:
        raise ValueError(f"{source}: column '{text_field}' is {printable(str(found))}, not text")


class Rows:
    """Consecutive arrays of one column, handed out by rows."""

    def __init__(self, arrays: Iterator["pa.Array"], place: Place) -> None:
        self._arrays = arrays
        self._place = place
        self._rest: pa.Array | None = None
        self._number = 0

    def documents(self, rows: int) -> Documents:
        """The documents of the next so many rows."""
        for array in self._next(rows):
            for start in range(0, len(array), ROWS_AT_ONCE):
                yield from documents_of(array[start : start + ROWS_AT_ONCE], self._place, self._number + start)
            self._number += len(array)

    def skip(self, rows: int) -> None:
        for array in self._next(rows):
            self._number += len(array)

    def finish(self) -> None:
        """All rows have been handed out. Errors: ValueError where there are more than the file says."""
        if self._rest is not None or any(len(array) for array in self._arrays):
            found = self._place.lines_before() + self._number
            raise ValueError(f"{self._place.file}, after row {found}: more rows than it says. Is the file complete?")

    def _next(self, rows: int) -> Iterator["pa.Array"]:
        while rows:
            array = next(self._arrays, None) if self._rest is None else self._rest
            if array is None:
                found = self._place.lines_before() + self._number
                raise ValueError(
                    f"{self._place.file}, after row {found}: {rows} rows are missing. Is the file complete?"
                )
            head = array[:rows]
            self._rest = array[rows:] if len(array) > rows else None
            rows -= len(head)
            yield head


def documents_of(array: "pa.Array", place: Place, rows_before: int) -> Documents:
    """The documents of an array of text or bytes. Errors: ValueError where the array itself is damaged."""
    for row, value in enumerate(_bytes_of(array, place, rows_before), start=rows_before + 1):
        if value is None:
            yield place.bad(row, "not_text", "null")
            continue
        if len(value) > LONGEST_DOCUMENT:
            yield place.bad(row, "too_long", f"{len(value)} bytes, more than {LONGEST_DOCUMENT}")
            continue
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            yield place.bad(row, "bad_utf8", not_utf8(error.reason, error.start))
            continue
        yield place.bad(row, "empty", "no text") if not text or text.isspace() else text


def _bytes_of(array: "pa.Array", place: Place, rows_before: int) -> list[bytes | None]:
    """As bytes: what is not UTF-8 is one bad record, where Arrow would refuse the rest of the array with it."""
    import pyarrow as pa

    try:
        array.validate(full=pa.types.is_dictionary(array.type))
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        values = array.cast(pa.large_binary())
        values.validate(full=True)
        return values.to_pylist()
    except pa.ArrowException as error:
        row = place.lines_before() + rows_before
        raise ValueError(f"{place.file}, after row {row}: cannot be read ({error}). Is the file complete?") from error
