"""Compressed files as streams of bytes, whose memory does not grow with what is in them."""

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
UNREADABLE = (OSError, EOFError, MemoryError, lzma.LZMAError, zlib.error)
"""What reading a damaged or truncated file raises."""

_MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2"}


def split_compression(path: str) -> tuple[str, str]:
    """'a.txt.gz' -> ('a.txt', '.gz')."""
    suffix = Path(path).suffix
    return (path[: -len(suffix)], suffix) if suffix in COMPRESSIONS else (path, "")


def compression_of(start: bytes) -> str:
    """The suffix for a file that begins like this; empty where it is not compressed."""
    return next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")


def decompressed(file: BinaryIO, compression: str) -> BinaryIO:
    """The bytes of a file that may be several compressed streams, one after the other."""
    match compression:
        case ".gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=file))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(file))
        case ".bz2":
            return cast(BinaryIO, bz2.BZ2File(file))
        case ".zst":
            return io.BufferedReader(_ZstdFile(file), buffer_size=1 << 17)
    return file


def explained(error: BaseException) -> str:
    """Why a file could not be read; some errors say nothing."""
    return str(error) or ("more memory is needed than there is" if isinstance(error, MemoryError) else repr(error))


class _ZstdFile(io.RawIOBase):
    """Decompressed .zst; zstandard's own reader takes a file that was cut short for a complete one."""

    # A few bytes can stand for a whole block of 128 KiB, so that this much input is at most 128 MiB of output.
    _INPUT_BYTES = 1 << 12

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = self._next_frame()
        self._compressed = b""
        self._ready = memoryview(b"")
        self._within_frame = False

    def _next_frame(self) -> "ZstdDecompressionObj":
        from zstandard import ZstdDecompressor

        # Archives are often written with --long=31, whose window is refused unless it is allowed here.
        return ZstdDecompressor(max_window_size=1 << 31).decompressobj(write_size=1 << 15)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub's Buffer has no slices
        from zstandard import ZstdError

        while not self._ready:
            self._compressed = self._compressed or self._file.read(self._INPUT_BYTES)
            if not self._compressed:
                if self._within_frame:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
                return 0
            try:
                self._ready = memoryview(self._frame.decompress(self._compressed))
            except ZstdError as error:
                raise OSError(str(error)) from error
            self._compressed, self._within_frame = b"", not self._frame.eof
            if self._frame.eof:  # files may be several frames one after the other
                self._compressed = self._frame.unused_data
                self._frame = self._next_frame()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
