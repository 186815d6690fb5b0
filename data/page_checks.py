"""Checksums of a mapped file's pages, compared when a page is first used: damage is found without reading the whole file."""

import zlib

import numpy as np
import numpy.typing as npt


class DamagedPageError(Exception):
    """A page of a file is not as it was written."""


class PageChecks:
    """The CRC-32 (P,) of the pages of `content` (bytes), each of `rows_per_page` rows of `row_size` bytes, the last perhaps of
    fewer.
    """

    def __init__(
        self, content: npt.NDArray[np.uint8], sums: npt.NDArray[np.uint32], rows_per_page: int, row_size: int
    ) -> None:
        self._content, self._sums = content, sums
        self._rows_per_page, self._page_size = rows_per_page, rows_per_page * row_size
        self._is_good = np.zeros(len(sums), dtype=bool)

    def check(self, rows: npt.NDArray[np.int64]) -> None:
        """DamagedPageError when one of these rows (S,) stands on a page that was damaged."""
        pages = rows // self._rows_per_page
        is_good = self._is_good[pages]
        if is_good.all():
            return
        for page in np.unique(pages[~is_good]).tolist():
            if checksum(self._content, page, self._page_size) != self._sums[page]:
                raise DamagedPageError(f"page {page}")
            self._is_good[page] = True


def checksum(content: npt.NDArray[np.uint8], page: int, page_size: int) -> int:
    return zlib.crc32(content[page * page_size : (page + 1) * page_size].data)
