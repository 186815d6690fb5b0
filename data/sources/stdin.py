"""Standard input, which can be read only once, as a file that can be read as often as needed."""

import hashlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

from data.sources.compression import UNREADABLE, compression_of, decompressed
from data.sources.lines import BYTE_ORDER_MARK

_BEGINNING_BYTES = 1 << 16
_LATEST = 2**31 * 10**9  # nanoseconds that every file system can store


def spool_stdin(folder: Path) -> Path:
    """Copy standard input into a file in `folder`, whose name says what is in it; returns its path, to give to plan_inputs.

    Compression is recognised by its first bytes. What begins with `{` is .jsonl, with `<doc ` WikiExtractor's, else .txt.
    Errors: ValueError where there is nothing to read; OSError, for a full disk among others.
    """
    if sys.stdin.isatty():
        raise ValueError("'-' reads standard input, which is a terminal. Pipe text into it: zcat texts.txt.gz | ...")
    folder.mkdir(parents=True, exist_ok=True)
    spooled = folder / "stdin.incomplete"
    try:
        digest = hashlib.sha256()
        with spooled.open("wb") as file:
            while block := sys.stdin.buffer.read(1 << 20):
                digest.update(block)
                file.write(block)
        # The time of change stands for the content, so that the same text piped again is the same input.
        when = int.from_bytes(digest.digest()[:8], "big") % _LATEST
        os.utime(spooled, ns=(when, when))
        if spooled.stat().st_size == 0:
            raise ValueError("'-' reads standard input, which is empty. Did the command before the pipe fail?")
        with spooled.open("rb") as file:
            return spooled.rename(folder / _name_for(file))
    except BaseException:
        spooled.unlink(missing_ok=True)
        raise


def _name_for(file: BinaryIO) -> str:
    compression = compression_of(file.read(8))
    file.seek(0)
    try:
        with decompressed(file, compression) as stream:
            start = stream.read(_BEGINNING_BYTES).removeprefix(BYTE_ORDER_MARK).lstrip()
    except UNREADABLE:
        start = b""  # too damaged to tell; whoever reads the file will say so
    if start.startswith(b"<doc "):
        return f"wiki_0{compression}"
    return f"stdin{'.jsonl' if start.startswith(b'{') else '.txt'}{compression}"
