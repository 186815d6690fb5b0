"""Files of lines as pieces and items of work: whole, as ranges of bytes, or read from the start in parts."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from data.sources.compression import COMPRESSIONS, UNREADABLE, decompressed, split_compression
from data.sources.delimited import DelimitedReader
from data.sources.documents import TextRecords, WikiRecords
from data.sources.item import Documents, Item, Meter, Part, Piece, pass_over
from data.sources.lines import BYTE_ORDER_MARK, Lines
from data.sources.record import Place
from data.sources.records import JsonRecords, RecordReader

LINE_FORMATS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": ",", ".tsv": "\t"}
"""Suffix -> what its lines mean."""

# Text in .gz, .xz, .zst or .bz2 has three to five times the size; only reading it would tell.
_EXPANSION = 4
_SCAN_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file as it was when the work was planned."""

    path: str
    bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: str) -> "StoredFile":
        facts = os.stat(path)
        return cls(path=path, bytes=facts.st_size, changed_ns=facts.st_mtime_ns)

    @property
    def identity(self) -> str:
        return f"{self.path} {self.bytes} {self.changed_ns}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Errors: ValueError where the file is another one by now, OSError where there is none."""
        with Path(self.path).open("rb", buffering=1 << 17) as file:
            facts = os.fstat(file.fileno())
            if (facts.st_size, facts.st_mtime_ns) != (self.bytes, self.changed_ns):
                raise ValueError(
                    f"'{self.path}' was changed since the work was planned. Start again with files at rest"
                )
            yield file


def plan_lines(file: StoredFile, kind: str, text_field: str, part_bytes: int) -> list[Piece | Item]:
    """A file of lines, or with `kind` "wiki" of what WikiExtractor wrote, as units of work."""
    is_compressed = split_compression(file.path)[1] in COMPRESSIONS
    if file.bytes * (_EXPANSION if is_compressed else 1) <= part_bytes:
        ends = [file.bytes]
    elif is_compressed or (_kind_of_wiki(file, _beginning(file)) if kind == "wiki" else kind) not in ("txt", "jsonl"):
        stream = FileStream(
            name=file.path,
            size=file.bytes,
            identity=file.identity,
            file=file,
            kind=kind,
            text_field=text_field,
            part_bytes=part_bytes,
        )
        return [stream]
    else:
        ends = [*range(part_bytes, file.bytes, part_bytes), file.bytes]
    starts = [0, *ends[:-1]]
    return [
        FileRange(
            name=file.path if len(ends) == 1 else f"{file.path}, bytes {start} to {end}",
            size=end - start,
            identity=f"{file.identity} {start} {end}",
            input_bytes=(end - start) * (_EXPANSION if is_compressed else 1),
            file=file,
            kind=kind,
            text_field=text_field,
            start=start,
            end=end,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class FileRange(Piece):
    """The records of a file whose first byte lies within a range of bytes; of a compressed file, all of them."""

    file: StoredFile
    kind: str
    text_field: str
    start: int
    end: int

    def documents(self, on_bytes: Callable[[int], None]) -> Documents:
        meter = Meter(self.size, on_bytes)
        if self.start == 0 and self.end == self.file.bytes:
            with _reader(self.file, self.kind, self.text_field, meter) as whole:
                yield from whole.documents()
        else:
            yield from self._within(meter)
        meter.finish()

    def _within(self, meter: Meter) -> Documents:
        with self.file.open() as file:
            kind = _kind_of_wiki(self.file, file.read(_SCAN_BYTES)) if self.kind == "wiki" else self.kind
            first = _line_start(file, self.start, self.end)
            if first is None:
                return
            place = Place(self.file.path, cache(lambda: _lines_before(self.file, first)))
            is_open = kind == "txt" and not _is_blank_before(file, first)
            file.seek(first)
            lines = Lines(place, file, lambda: meter.advance_to(file.tell() - self.start), first)
            records = TextRecords(place, is_open) if kind == "txt" else JsonRecords(place, self.text_field)
            reader = RecordReader(lines, records)
            reader.skip_open(self.end)
            yield from reader.documents(self.end)


@dataclass(frozen=True, kw_only=True)
class FileStream(Item):
    """A file that can only be read from its start, in parts of part_bytes after decompression."""

    file: StoredFile
    kind: str
    text_field: str
    part_bytes: int

    def parts(self, is_wanted: Callable[[int], bool], on_bytes: Callable[[int], None]) -> Iterator[Part]:
        meter = Meter(self.size, on_bytes)
        with _reader(self.file, self.kind, self.text_field, meter) as reader:
            number = 0
            while not reader.is_at_end():
                end = (number + 1) * self.part_bytes
                if is_wanted(number):
                    documents = reader.documents(end)
                    yield number, documents
                    pass_over(documents)
                else:
                    reader.skip(end)
                    yield number, None
                number += 1
        meter.finish()


@contextmanager
def _reader(stored: StoredFile, kind: str, text_field: str, meter: Meter) -> Iterator[RecordReader | DelimitedReader]:
    """A file from its first byte on."""
    compression = split_compression(stored.path)[1]
    place = Place(stored.path)
    if kind == "wiki":
        kind = _kind_of_wiki(stored, _beginning(stored))
    with stored.open() as file, decompressed(file, compression) as stream:
        lines = Lines(place, stream, lambda: meter.advance_to(file.tell()))
        if kind in (",", "\t"):
            yield DelimitedReader(lines, place, kind, text_field)
        elif kind == "txt":
            yield RecordReader(lines, TextRecords(place))
        elif kind == "doc":
            yield RecordReader(lines, WikiRecords(place))
        else:
            yield RecordReader(lines, JsonRecords(place, text_field))


def _beginning(stored: StoredFile) -> bytes:
    """The first bytes, as far as they can be read; why there are no more is the reader's to say."""
    with stored.open() as file, decompressed(file, split_compression(stored.path)[1]) as stream:
        try:
            return stream.read(_SCAN_BYTES)
        except UNREADABLE:
            return b""


def _kind_of_wiki(file: StoredFile, beginning: bytes) -> str:
    """What WikiExtractor wrote: "jsonl" with --json, else "doc". Errors: ValueError where it is neither."""
    start = beginning.removeprefix(BYTE_ORDER_MARK).lstrip()
    if start and not start.startswith((b"{", b"<doc ")):
        raise ValueError(
            f"'{file.path}' is named like a file of WikiExtractor, but begins with neither '<doc ' nor '{{'. "
            "Rename it, to .txt for example"
        )
    return "jsonl" if start.startswith(b"{") else "doc"


def _line_start(file: BinaryIO, start: int, end: int) -> int | None:
    """The byte, from `start` on and before `end`, at which the first line begins."""
    if start == 0:
        return 0
    file.seek(start - 1)
    at = start - 1
    while at < end and (data := file.read(_SCAN_BYTES)):
        newline = data.find(b"\n")
        if newline >= 0:
            return at + newline + 1 if at + newline + 1 < end else None
        at += len(data)
    return None


def _is_blank_before(file: BinaryIO, line_start: int) -> bool:
    """Whether the line before the one that begins here is blank; so is what comes before the first line."""
    end = line_start - 1  # of the line before, without its newline
    while end > 0:
        start = end - _SCAN_BYTES if end > _SCAN_BYTES + len(BYTE_ORDER_MARK) else 0
        file.seek(start)
        data = file.read(end - start)
        if start == 0:
            data = data.removeprefix(BYTE_ORDER_MARK)
        line = data[data.rfind(b"\n") + 1 :]
        if line.strip():
            return False
        if len(line) < len(data):
            return True
        end = start
    return True


def _lines_before(file: StoredFile, offset: int) -> int:
    with Path(file.path).open("rb") as stream:
        lines = 0
        while offset > 0 and (data := stream.read(min(offset, 1 << 20))):
            lines += data.count(b"\n")
            offset -= len(data)
    return lines


def is_record_a_line(path: str) -> bool:
    """False for a .json that is one value over many lines, or a list."""
    name, _ = split_compression(path)
    if not name.endswith(".json"):
        return True
    start = _beginning(StoredFile.of(path)).removeprefix(BYTE_ORDER_MARK).lstrip()
    line, newline, _ = start.partition(b"\n")
    return not start or (line.startswith(b"{") and (not newline or line.rstrip().endswith(b"}")))
