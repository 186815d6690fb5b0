"""What a record that gives no document is reported as, and where in its file it stands."""

from collections.abc import Callable
from dataclasses import dataclass

REASONS = {
    "bad_json": "the line is not valid JSON",
    "bad_utf8": "the text is not UTF-8",
    "missing_field": "the record has no field of this name, or the row no such column",
    "not_text": "the field is something other than text, such as a number or null",
    "surrogate": "half a surrogate pair, which stands for no character",
    "empty": "the text is empty or white space",
    "too_long": "the record is longer than LONGEST_DOCUMENT bytes",
    "bad_row": "the row of a table cannot be read",
    "bad_block": "text outside <doc>...</doc>, or a <doc> that is not closed",
}
"""Every `BadRecord.reason`."""

LONGEST_DOCUMENT = 1 << 26
"""Bytes of a line, row or document; a longer one is taken for a mistake rather than held in memory."""

_LONGEST_DETAIL = 200


@dataclass(frozen=True)
class BadRecord:
    """A record that gives no document."""

    file: str
    line: int
    """1-based line of the file, row of a table or dataset."""
    reason: str
    """A key of REASONS."""
    detail: str
    """Short, printable, one line."""


@dataclass(frozen=True)
class Place:
    """Where a reader stands: its file, and how many lines or rows lie before those that it counts."""

    file: str
    lines_before: Callable[[], int] = int  # none; asked only when a line has to be named

    def bad(self, line: int, reason: str, detail: str) -> BadRecord:
        """The record on the reader's line `line` is broken."""
        assert reason in REASONS
        return BadRecord(self.file, self.lines_before() + line, reason, printable(detail))


def printable(text: str) -> str:
    """Cut to a line that a terminal and a log can show."""
    text = text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "..."
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def not_utf8(reason: str, position: int) -> str:
    """The detail of `bad_utf8`."""
    return f"{reason} at byte {position} of the text; iconv -t UTF-8 converts a file"
