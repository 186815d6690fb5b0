"""What lines mean, and JSON records as the simplest case.

A record belongs to the part of a file in which its first byte lies. Readers are given blocks of whole lines, one after the
other: `read` turns a block into documents, `skip` only follows whether a record is open at its end, `rest` says how much
of a block an open record still takes, and `close` ends it.
"""

import json
from collections.abc import Iterator
from typing import Protocol

from data.sources.item import Documents
from data.sources.lines import BYTE_ORDER_MARK, Lines
from data.sources.record import LONGEST_DOCUMENT, BadRecord, Place, not_utf8


class Records(Protocol):
    """A meaning of lines; each block begins where the last one ended."""

    is_open: bool
    """Whether a record has begun that may go on in the next block."""

    def read(self, block: bytes, line: int) -> Documents:
        """The documents that end in a block, whose first line has this number."""
        ...

    def skip(self, block: bytes) -> None:
        """Keep `is_open` right, no more."""
        ...

    def rest(self, block: bytes) -> int:
        """How many bytes of the block, to the end of a line, the open record takes."""
        ...

    def close(self) -> Documents:
        """The open record, if there is one, has no more lines."""
        ...


class RecordReader:
    """The documents of a stream of lines, up to any byte; what lies before is read or skipped, but only once."""

    def __init__(self, lines: Lines, records: Records) -> None:
        self._lines = lines
        self._records = records

    def documents(self, end: int | None = None) -> Documents:
        """Those that begin before byte `end`."""
        for block, line in self._blocks(end):
            yield from self._records.read(block, line)
        yield from self._records.close()

    def skip(self, end: int) -> None:
        """Pass over the documents that begin before byte `end`."""
        for block, _ in self._blocks(end):
            self._records.skip(block)
        for _ in self._records.close():
            pass

    def skip_open(self, end: int) -> None:
        """Pass over the rest of a record that began before this reader did, no further than to byte `end`."""
        records, lines = self._records, self._lines
        while records.is_open and (block := lines.take(end)):
            length = records.rest(block)
            lines.give_back(block[length:])
            records.skip(block[:length])
        records.is_open = False

    def is_at_end(self) -> bool:
        return self._lines.is_at_end()

    def _blocks(self, end: int | None) -> Iterator[tuple[bytes, int]]:
        """(lines, number of the first of them) of the records that begin before `end`."""
        lines, line = self._lines, self._lines.number + 1
        if end is None or lines.offset < end:
            is_first = lines.offset == 0
            while block := lines.take(end):
                # Windows editors put a byte order mark at the start of a file; it is no text.
                yield block.removeprefix(BYTE_ORDER_MARK) if is_first else block, line
                is_first, line = False, lines.number + 1
        while self._records.is_open and (block := lines.take()):
            length = self._records.rest(block)
            lines.give_back(block[length:])
            if length:
                yield block[:length], line
                line = lines.number + 1
            if length < len(block):
                break


class JsonRecords:
    """A record a line, an object with the text in one of its fields; blank lines are none."""

    is_open = False

    def __init__(self, place: Place, text_field: str) -> None:
        self._place = place
        self._field = text_field
        self._decode = json.JSONDecoder().decode

    def read(self, block: bytes, line: int) -> Documents:
        if len(block) > LONGEST_DOCUMENT and block.find(b"\n") > LONGEST_DOCUMENT:
            yield self._place.bad(line, "too_long", f"a line of more than {LONGEST_DOCUMENT} bytes")
            return
        try:
            texts: list[str] = block.decode().split("\n")
        except UnicodeDecodeError:
            yield from self._read_one_by_one(block, line)
            return
        for number, text in enumerate(texts, start=line):
            if text and not text.isspace():
                yield self._document(text, number)

    def _read_one_by_one(self, block: bytes, line: int) -> Documents:
        """For a block that is not UTF-8 somewhere."""
        for number, content in enumerate(block.split(b"\n"), start=line):
            try:
                text = content.decode()
            except UnicodeDecodeError as error:
                yield self._place.bad(number, "bad_utf8", not_utf8(error.reason, error.start))
                continue
            if text and not text.isspace():
                yield self._document(text, number)

    def _document(self, line: str, number: int) -> str | BadRecord:
        bad = self._place.bad
        try:
            record = self._decode(line)
        except (ValueError, RecursionError) as error:
            return bad(number, "bad_json", str(error))
        if not isinstance(record, dict) or self._field not in record:
            found = f"fields {', '.join(record)}" if isinstance(record, dict) else type(record).__name__
            return bad(number, "missing_field", f"no field '{self._field}' in {found}")
        text = record[self._field]
        if not isinstance(text, str):
            return bad(number, "not_text", f"'{self._field}' is {type(text).__name__}")
        if not text or text.isspace():
            return bad(number, "empty", f"'{self._field}' has no text")
        if "\\u" in line:  # the only way to half a surrogate pair
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return bad(number, "surrogate", f"\\u{ord(text[error.start]):04x} at character {error.start}")
        return text

    def skip(self, block: bytes) -> None:
        pass

    def rest(self, block: bytes) -> int:
        return 0

    def close(self) -> Documents:
        return iter(())
