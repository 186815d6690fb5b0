"""Tables of comma- or tab-separated values, whose quoted fields may hold line breaks."""

import csv
from collections.abc import Iterator

from data.sources.item import Documents
from data.sources.lines import BYTE_ORDER_MARK, Lines
from data.sources.record import LONGEST_DOCUMENT, BadRecord, Place, not_utf8, printable


class DelimitedReader:
    """The rows of a table, whose first row names the columns, up to any byte of its file.

    A row belongs to where its first line begins, and where that is, only reading from the start can tell.
    """

    def __init__(self, lines: Lines, place: Place, delimiter: str, text_field: str) -> None:
        """Errors: ValueError where there is no column `text_field`."""
        csv.field_size_limit(LONGEST_DOCUMENT)
        self._place = place
        self._lines = lines
        self._offset = self._number = 0  # of the line that comes next
        self._is_at_end = False
        self._rows = csv.reader(self._feed(), delimiter=delimiter)
        header = next((row for _, row in self._until(None) if not isinstance(row, BadRecord)), None)
        if header is None:
            return
        names = [name.encode("latin-1").decode(errors="replace") for name in header]
        if text_field not in names:
            raise ValueError(
                f"{place.file}, line {self._number}: no column '{text_field}' (found: {printable(', '.join(names))}). "
                "Name the right one with --text_field; the first line has to name the columns"
            )
        self._field = text_field
        self._column = names.index(text_field)

    def documents(self, end: int | None = None) -> Documents:
        """Those of the rows that begin before byte `end`."""
        for number, row in self._until(end):
            yield row if isinstance(row, BadRecord) else self._document(row, number)

    def skip(self, end: int) -> None:
        """Pass over the rows that begin before byte `end`."""
        for _ in self._until(end):
            pass

    def is_at_end(self) -> bool:
        return self._is_at_end

    def _until(self, end: int | None) -> Iterator[tuple[int, list[str] | BadRecord]]:
        """(number of its first line, row); empty lines are no rows."""
        while not self._is_at_end and (end is None or self._offset < end):
            number = self._number + 1
            try:
                row = next(self._rows)
            except StopIteration:
                self._is_at_end = True
                return
            except csv.Error as error:
                reason = "too_long" if "field limit" in str(error) else "bad_row"
                yield number, self._place.bad(number, reason, str(error))
                continue
            if row:
                yield number, row

    def _feed(self) -> Iterator[str]:
        """Lines in which a character is a byte: commas and quotes can be told without decoding what is between them."""
        is_first = True
        while block := self._lines.take():
            if is_first:
                block, is_first = block.removeprefix(BYTE_ORDER_MARK), False
            for text in block[:-1].decode("latin-1").split("\n"):
                self._offset += len(text) + 1
                self._number += 1
                yield text + "\n"

    def _document(self, row: list[str], number: int) -> str | BadRecord:
        if len(row) <= self._column:
            return self._place.bad(
                number, "missing_field", f"{len(row)} columns, '{self._field}' is the {self._column + 1}."
            )
        try:
            text = row[self._column].encode("latin-1").decode()
        except UnicodeDecodeError as error:
            return self._place.bad(number, "bad_utf8", not_utf8(error.reason, error.start))
        if not text or text.isspace():
            return self._place.bad(number, "empty", f"'{self._field}' has no text")
        return text
