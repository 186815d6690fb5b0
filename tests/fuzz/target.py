"""What a target is, and the property that all of them share: refused by name, or right; never slow, never large."""

import contextlib
import faulthandler
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

MOST_SECONDS = 2.0  # of processor time for one input, which usually takes a millisecond
MOST_MEMORY = 1 << 30  # bytes on top of what the process has after its imports
_LONGEST_MESSAGE = 3_000  # characters
_HANGS_AFTER = 600  # seconds by the clock for _BETWEEN_ALARMS inputs: code that does not return to Python
_BETWEEN_ALARMS = 500


@dataclass(frozen=True, kw_only=True)
class Target:
    """`run` takes one input, says whether anything was accepted, and raises for whatever must not happen."""

    run: Callable[[bytes], bool]
    seeds: Sequence[bytes]
    """Inputs that are accepted."""
    num_parts: int = 1
    """Files in an input, joined by `pack`."""


class Folder:
    """A folder in memory for the files of one input; a file is written only when it changes."""

    def __init__(self, name: str = "") -> None:
        shared = Path("/dev/shm")
        self._owner = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self.path = Path(self._owner.name) / name
        self.path.mkdir(exist_ok=True)
        self._written: dict[str, bytes] = {}

    def write(self, name: str, content: bytes) -> None:
        """Empty content is no file."""
        if self._written.get(name) == content:
            return
        path = self.path / name
        path.unlink(missing_ok=True)  # never in place: an earlier input may still have it mapped
        if content:
            path.write_bytes(content)
        self._written[name] = content

    def forget(self, name: str) -> None:
        """Somebody else wrote it: it is to be written again."""
        self._written.pop(name, None)

    def attempt(self, action: Callable[[], Result]) -> Result | None:
        """The action's result, or None where it refused: with ValueError or FileNotFoundError that names a file in here."""
        try:
            return action()
        except (ValueError, FileNotFoundError) as error:
            message = str(error)
            if str(self.path) not in message or len(message) > _LONGEST_MESSAGE:
                raise AssertionError(f"names no file, or fills the screen: {message:.500}") from error
            return None


@dataclass
class Runner:
    """Runs a target within its limits and counts."""

    target: Target
    inputs: int = 0
    accepted: int = 0
    slowest: float = field(default=0.0)

    def __call__(self, data: bytes) -> None:
        if self.inputs % _BETWEEN_ALARMS == 0:
            faulthandler.dump_traceback_later(_HANGS_AFTER, exit=True)
        self.inputs += 1
        started = time.process_time()
        self.accepted += self.target.run(data)
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        assert seconds < MOST_SECONDS, f"one input of {len(data)} bytes took {seconds:.1f} s"

    def describe(self) -> str:
        return f"{self.inputs:,} inputs, {self.accepted:,} accepted, slowest {1000 * self.slowest:.0f} ms"


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Too large an allocation is a MemoryError, any warning an error, a hang ends the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, limits[1]))
    try:
        with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
            warnings.simplefilter("error")
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, limits)


def pack(parts: Sequence[bytes]) -> bytes:
    """Several files as one input: each behind its length."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unpack(data: bytes, number: int) -> list[bytes]:
    """The files of an input, whatever it is: a length beyond the end is cut, a missing file is empty."""
    parts, at = [], 0
    for _ in range(number):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        parts.append(data[at + 4 : end])
        at = end
    return parts
