"""A stream of bytes as blocks of whole lines, which can be cut at any byte without holding more than a block."""

from collections.abc import Callable
from typing import BinaryIO

from data.sources.compression import UNREADABLE, explained
from data.sources.record import LONGEST_DOCUMENT, Place

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20


class Lines:
    """Reads blocks of whole lines, from a line's start on; every block ends with a newline, also where the file does not.

    A line of more than LONGEST_DOCUMENT bytes is cut after one byte more than that: readers can tell, and go on behind it.
    """

    def __init__(self, place: Place, stream: BinaryIO, on_read: Callable[[], None], offset: int = 0) -> None:
        self.offset = offset
        """Byte of the (decompressed) file at which the next block begins."""
        self.number = 0
        """Lines that have been taken, from where reading began."""
        self._place = place
        self._stream = stream
        self._on_read = on_read
        self._lines = b""  # whole lines from `offset` on
        self._partial = b""  # what follows them, up to where the stream was read
        self._cut_off = 0  # bytes of an overlong line that lie before what is read next

    def take(self, end: int | None = None) -> bytes:
        """Whole lines that begin before byte `end`, about a block of them; nothing where there are none.

        Errors: ValueError naming the file and the line after which it cannot be read.
        """
        self._fill()
        if end is not None and end <= self.offset:
            return b""
        lines, self._lines = self._lines, b""
        if end is not None and self.offset + len(lines) > end:
            next_line = lines.index(b"\n", end - 1 - self.offset) + 1
            lines, self._lines = lines[:next_line], lines[next_line:]
        self.offset += len(lines)
        self.number += lines.count(b"\n")
        return lines

    def give_back(self, lines: bytes) -> None:
        """The end of the block that was taken last is to be taken again."""
        self.offset -= len(lines)
        self.number -= lines.count(b"\n")
        self._lines = lines + self._lines

    def is_at_end(self) -> bool:
        """Whether there are no more lines."""
        self._fill()
        return not self._lines

    def _fill(self) -> None:
        if self._lines:
            return
        self.offset += self._cut_off
        self._cut_off = 0
        pieces: list[bytes] = []
        size = 0  # of the line whose beginning the pieces are
        data, self._partial = self._partial, b""
        while data := data or self._read():
            line_end = data.find(b"\n")
            if size + (len(data) if line_end < 0 else line_end) > LONGEST_DOCUMENT:
                self._cut(pieces, data)
                return
            if line_end >= 0:
                last_line = data.rfind(b"\n") + 1
                self._lines, self._partial = b"".join([*pieces, data[:last_line]]), data[last_line:]
                return
            pieces.append(data)
            size += len(data)
            data = b""
        if size:
            self._lines = b"".join([*pieces, b"\n"])

    def _cut(self, pieces: list[bytes], data: bytes) -> None:
        """Keep the start of an overlong line, of which `data` is the next piece, and pass over the rest."""
        kept = b"".join([*pieces, data])[: LONGEST_DOCUMENT + 1]
        size = sum(map(len, pieces))
        while data:
            line_end = data.find(b"\n") + 1
            size += line_end or len(data)
            self._partial = data[line_end:] if line_end else b""
            data = b"" if line_end else self._read()
        self._lines = kept + b"\n"
        self._cut_off = size - len(self._lines)

    def _read(self) -> bytes:
        try:
            data = self._stream.read(_BLOCK_BYTES)
        except UNREADABLE as error:
            line = self._place.lines_before() + self.number
            raise ValueError(
                f"{self._place.file}, after line {line}: cannot be read ({explained(error)}). Is the file complete?"
            ) from error
        self._on_read()
        return data
