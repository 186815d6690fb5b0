"""Documents of several lines: those between blank lines, and the blocks that WikiExtractor writes.

Both are `data.sources.records.Records`.
"""

import re

from data.sources.item import Documents
from data.sources.record import LONGEST_DOCUMENT, BadRecord, Place, not_utf8


class _Document:
    """The lines of a document that is being read."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lines: list[bytes] = []
        self._size = 0
        self._first = 0

    def begin(self, line: int) -> None:
        """With the line of this number; there is no text yet."""
        self._lines, self._size, self._first = [], 0, line

    def add(self, text: bytes) -> None:
        self._size += len(text) + 1
        if self._size > LONGEST_DOCUMENT + 1:
            self._lines = []  # it will be refused: nothing of it is kept
        else:
            self._lines.append(text.rstrip(b"\r"))

    def finish(self) -> str | BadRecord:
        if self._size > LONGEST_DOCUMENT + 1:
            return self._place.bad(self._first, "too_long", f"a document of more than {LONGEST_DOCUMENT} bytes")
        content = b"\n".join(self._lines)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            line = self._first + content.count(b"\n", 0, error.start)
            line_start = content.rfind(b"\n", 0, error.start) + 1
            return self._place.bad(line, "bad_utf8", not_utf8(error.reason, error.start - line_start))
        if not text or text.isspace():
            return self._place.bad(self._first, "empty", "a document of white space")
        return text


class TextRecords:
    """Documents separated by blank lines; a line of white space is blank."""

    _BLANK_LINE = re.compile(rb"^[ \t\r\v\f]*\n", re.MULTILINE)

    def __init__(self, place: Place, is_open: bool = False) -> None:
        """`is_open`: what comes first is the rest of a document that began before."""
        self.is_open = is_open
        self._document = _Document(place)

    def read(self, block: bytes, line: int) -> Documents:
        texts = block.split(b"\n")
        texts.pop()  # behind the last newline
        for number, text in enumerate(texts, start=line):
            if text and not text.isspace():
                if not self.is_open:
                    self._document.begin(number)
                    self.is_open = True
                self._document.add(text)
            elif self.is_open:
                yield from self.close()

    def skip(self, block: bytes) -> None:
        last_line = block.rfind(b"\n", 0, -1) + 1
        self.is_open = not block[last_line:].isspace()

    def rest(self, block: bytes) -> int:
        blank = self._BLANK_LINE.search(block)
        return blank.end() if blank else len(block)

    def close(self) -> Documents:
        if self.is_open:
            self.is_open = False
            yield self._document.finish()


class WikiRecords:
    """`<doc ...>`, the text, `</doc>`, each tag at the start of a line, as WikiExtractor writes them.

    Other text is a broken record: from its first line up to the next tag.
    """

    _TAG = re.compile(rb"^(<doc |</doc>[^\n]*\n)", re.MULTILINE)

    def __init__(self, place: Place) -> None:
        self.is_open = False
        self._place = place
        self._document = _Document(place)
        self._first = 0
        self._has_tag = False

    def read(self, block: bytes, line: int) -> Documents:
        texts = block.split(b"\n")
        texts.pop()
        for number, text in enumerate(texts, start=line):
            if text.startswith(b"<doc "):
                yield from self.close()
                self._begin(number, has_tag=True)
            elif text.startswith(b"</doc>"):
                if not self.is_open:
                    self._begin(number, has_tag=False)
                yield self._finish(is_closed=True)
            elif self.is_open:
                self._document.add(text)
            elif text and not text.isspace():
                self._begin(number, has_tag=False)

    def skip(self, block: bytes) -> None:
        tags = list(self._TAG.finditer(block))
        begins_inside = bool(tags) and not tags[-1][1].startswith(b"</")
        after = block[tags[-1].end() :] if tags else block
        self.is_open = begins_inside or (self.is_open and not tags) or bool(after.strip())

    def rest(self, block: bytes) -> int:
        tag = self._TAG.search(block)
        if tag is None:
            return len(block)
        return tag.end() if tag[1].startswith(b"</") else tag.start()

    def close(self) -> Documents:
        if self.is_open:
            yield self._finish(is_closed=False)

    def _begin(self, number: int, has_tag: bool) -> None:
        self.is_open, self._has_tag, self._first = True, has_tag, number
        self._document.begin(number + 1)

    def _finish(self, is_closed: bool) -> str | BadRecord:
        self.is_open = False
        if not self._has_tag:
            return self._place.bad(self._first, "bad_block", "text outside <doc ...> and </doc>")
        if not is_closed:
            return self._place.bad(self._first, "bad_block", "<doc ...> without </doc>")
        document = self._document.finish()
        return document.strip() if isinstance(document, str) else document
