"""Checksums of a mapped file's pages, compared when a page is first used: damage is found without reading the whole file."""

import zlib

import numpy as np
import numpy.typing as npt

from data.mapped_file import MappedFile


class DamagedPageError(Exception):
    """A page of a file is not as it was written, or no longer there."""


class PageChecks:
    """Pages (P,) of a file from byte `start` on, of `page_size` bytes, the last perhaps of fewer; sums: their CRC-32."""

    def __init__(self, file: MappedFile, start: int, page_size: int, sums: npt.NDArray[np.uint32]) -> None:
        self._file, self._content, self._page_size, self._sums = file, file.bytes[start:], page_size, sums
        self._is_good = np.zeros(len(sums), dtype=bool)

    def check(self, pages: npt.NDArray[np.int64]) -> None:
        """DamagedPageError when one of these pages (S,) was damaged, or the file cut short."""
        try:
            self._file.check()
        except ValueError as error:
            raise DamagedPageError(str(error)) from error
        is_good = self._is_good[pages]
        if is_good.all():
            return
        for page in np.unique(pages[~is_good]).tolist():
            if page_sum(self._content, page, self._page_size) != self._sums[page]:
                raise DamagedPageError(f"{self._file.path}: page {page} is not as it was written")
            self._is_good[page] = True


def page_sum(content: npt.NDArray[np.uint8], page: int, page_size: int) -> int:
    """CRC-32 of a page of `content`."""
    return zlib.crc32(content[page * page_size : (page + 1) * page_size].data)
