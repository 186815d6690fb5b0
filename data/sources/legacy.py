"""Files of text -> documents, one at a time: .txt and .jsonl, plain or compressed with gzip, xz or zstandard.

A bad file stops the reading with its name, the line and the reason: a corpus that silently lost text is worse than none.
"""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

_FORMATS = (".txt", ".jsonl")
_COMPRESSIONS = (".gz", ".xz", ".zst")

# A text file without blank lines is one document; beyond this it is taken for a mistake rather than held in memory.
_LONGEST_DOCUMENT = 1 << 26


class InputProgress:
    """How much of the input has been read, in bytes as stored (compressed)."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.total_bytes = sum(Path(path).stat().st_size for path in paths)
        self._finished_bytes = 0
        self._current: BinaryIO | None = None

    @property
    def bytes_read(self) -> int:
        return self._finished_bytes + (self._current.tell() if self._current else 0)

    def begin(self, file: BinaryIO) -> None:
        self._current = file

    def end(self, size: int) -> None:
        self._finished_bytes += size
        self._current = None


def check_inputs(paths: Sequence[str]) -> None:
    """Refuse a missing file or an unknown suffix before anything is read. Errors: FileNotFoundError, ValueError."""
    for path in paths:
        _format_of(path)
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"no file '{path}'. Give existing files after --input; a shell expands wiki/*.jsonl.xz"
            )


def read_documents(
    paths: Sequence[str], *, text_field: str = "text", progress: InputProgress | None = None
) -> Iterator[str]:
    """The documents of the files, in order.

    .txt: documents are separated by blank lines. .jsonl: a record is a document, its text is in `text_field`. Either may
    end in .gz, .xz or .zst as well. Encoding is UTF-8. `progress`, if given, follows the bytes read.
    Errors: FileNotFoundError; ValueError naming file, line and reason.
    """
    check_inputs(paths)
    for path in paths:
        with Path(path).open("rb") as file:
            if progress:
                progress.begin(file)
            lines = _decoded_lines(path, _decompressed(path, file))
            yield from _text_documents(path, lines) if _format_of(path) == ".txt" else _records(path, lines, text_field)
            if progress:
                progress.end(file.tell())


def _format_of(path: str) -> str:
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise ValueError(
            f"'{path}' has no known suffix: {' or '.join(_FORMATS)} are read, optionally followed by one of "
            f"{', '.join(_COMPRESSIONS)}. Rename it, or convert it to .jsonl"
        )
    return suffixes[-1]


def _decompressed(path: str, file: BinaryIO) -> BinaryIO:
    match Path(path).suffix:
        case ".gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=file))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(file))
        case ".zst":
            return io.BufferedReader(_ZstdFile(file), buffer_size=1 << 17)
    return file


class _ZstdFile(io.RawIOBase):
    """Decompressed .zst; zstandard's own reader takes a file that was cut short for a complete one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._compressed = self._ready = b""
        self._within_frame = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub's Buffer has no slices
        while not self._ready:
            self._compressed = self._compressed or self._file.read(1 << 16)
            if not self._compressed:
                if self._within_frame:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
                return 0
            self._ready = self._frame.decompress(self._compressed)
            self._compressed, self._within_frame = b"", not self._frame.eof
            if self._frame.eof:  # files may be several frames one after the other
                self._compressed = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _decoded_lines(path: str, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """(line number, line without its end), decoded line by line so that an error can say where."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            # A byte order mark is no text; Windows editors put one at the start of a file.
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            yield number, text.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start} of the line). "
            "Convert the file, for example with iconv -t UTF-8"
        ) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise ValueError(f"{path}, after line {number}: cannot be read ({error}). Is the file complete?") from error


def _text_documents(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    document: list[str] = []
    size = 0
    for number, line in lines:
        if line.strip():
            document.append(line)
            size += len(line) + 1
            if size > _LONGEST_DOCUMENT:
                raise ValueError(
                    f"{path}, line {number}: a document of more than {_LONGEST_DOCUMENT} characters. "
                    "Separate the documents with blank lines"
                )
        elif document:
            yield "\n".join(document)
            document, size = [], 0
    if document:
        yield "\n".join(document)


def _records(path: str, lines: Iterator[tuple[int, str]], text_field: str) -> Iterator[str]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(record, dict) or text_field not in record:
            found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"{path}, line {number}: no field '{text_field}' (found: {found}). Name the right one with --text_field"
            )
        text = record[text_field]
        if not isinstance(text, str):
            raise ValueError(f"{path}, line {number}: field '{text_field}' is {type(text).__name__}, not text")
        if "\\u" in line:  # the only way to half a surrogate pair, which no tokenizer can take
            _check_surrogates(path, number, text)
        yield text


def _check_surrogates(path: str, number: int, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path}, line {number}: half a surrogate pair, \\u{ord(text[error.start]):04x}, which stands for no character. "
            "Write the text as UTF-8"
        ) from error
