"""A file read through a memory map, how its pages come into memory, and what happens when it shrinks under it.

Reading a page that is not in memory waits for the disk, one page after the other, and brings in as many around it as the
disk is set up for, up to megabytes. `prefetch` asks for many places at once, and `disk_reads` tells when to.

Reading a page that the file no longer has, or that the disk cannot give, is SIGBUS: the kernel ends the process without
a word. So `check` asks for the size before each reading, and `report_bus_errors` gives what remains (the file was cut
between the check and the reading, the disk failed) stacks and an exit code.
"""

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
from pathlib import Path

import numpy as np
import numpy.typing as npt

_GRANULE = 1 << 16  # bytes: a disk gives them as fast as one page, and few updates bring in the whole of an .idx


class MappedFile:
    """The bytes of a file, (size,) uint8, of which pages are read when they are touched. Errors: OSError.

    identity: size, time of the last writing and time of the last change of any kind, in nanoseconds, when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            self.identity = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            # An empty file cannot be mapped.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if found.st_size else None
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map or b"", dtype=np.uint8)
        self.size = len(self.bytes)

    def expect_random_reads(self, is_random: bool = True) -> None:
        """From now on a page brings in no others, or again as many as the disk is set up for."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_RANDOM if is_random else mmap.MADV_NORMAL)

    def prefetch(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> None:
        """Ask for the bytes [start, stop) of each stretch (N,) without waiting."""
        firsts = np.clip(starts, 0, self.size) // _GRANULE * _GRANULE
        sizes = np.minimum(-(-stops // _GRANULE) * _GRANULE, self.size) - firsts
        if self._map is not None:
            for first, size in {*zip(firsts.tolist(), sizes.tolist(), strict=True)}:
                if size > 0:
                    self._map.madvise(mmap.MADV_WILLNEED, first, size)

    def check(self) -> None:
        """ValueError when the file has another size than when it was opened. One fstat: a microsecond.

        A file that was replaced (renamed over) is no error: the map keeps the old one.
        """
        if self._map is not None and (size := self._map.size()) != self.size:
            raise ValueError(
                f"{self.path} had {self.size} bytes when it was opened and has {size} now: it was cut short or written to "
                "while in use. Put the complete file back, check it with python -m data.prepare --verify, and resume"
            )


def disk_reads() -> int:
    """Rises whenever this thread reads from a disk, be it that it touched a page that was not in memory or asked for one."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_majflt + usage.ru_inblock


def report_bus_errors() -> None:
    """From now on SIGBUS prints the Python stacks of all threads on stderr and ends the process with exit code 7.

    7 is SIGBUS's number on Linux: libc's _exit serves as its handler, so nothing of Python runs in a broken process. The
    stacks are faulthandler's, which afterwards hands the signal to the handler that it found.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    faulthandler.disable()
    libc.signal(signal.SIGBUS, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.enable(all_threads=True)
