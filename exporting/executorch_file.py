"""One copy of every tensor in a .pte: what XNNPACK and ExecuTorch's own kernels both read is written once.

A program keeps the weights of XNNPACK in segments of their own, and those of its own kernels in another. A masked LM's
vocabulary projection is the word embedding, so it would be there twice: a third of the file. The list of segments, at fixed
places of the file, says where each is; one whose bytes are there already is pointed at those, and cut out.
Format: schema/program.fbs and schema/extended_header.cpp of ExecuTorch; flatbuffers' tables are read by its own package.
"""

import struct
from typing import NamedTuple

HEADER = 8
"""Where the extended header begins: "eh00", u32 its length, u64 size of the program, of its padding, u64 of the segments."""
SEGMENT_BASE, SEGMENT_BYTES = HEADER + 16, HEADER + 24
SEGMENTS, CONSTANT_SEGMENT, NAMED_DATA = 4, 5, 7
"""Fields of Program, by their order in the schema."""
MIN_BYTES = 1024
"""Smaller tensors are not worth the search."""


class Segment(NamedTuple):
    """Where a segment's place is written, and what is written there."""

    position: int
    """Of its offset (u64) in the file."""
    offset: int
    """From where segments begin."""
    size: int


def share_tensors(data: bytes) -> bytes:
    """The same program, shorter where a tensor of XNNPACK's is one of the constants too."""
    assert data[HEADER : HEADER + 4] == b"eh00", "ExecuTorch writes this header where there are segments"
    file = bytearray(data)
    while (found := _find_copy(file)) is not None:
        copied, original = found
        _cut(file, copied, original)
    return bytes(file)


def _find_copy(file: bytearray) -> tuple[Segment, int] | None:
    """A segment of XNNPACK's and the offset of a constant of the same bytes."""
    (base,) = struct.unpack_from("<Q", file, SEGMENT_BASE)
    segments, constants, named = _tables(file)
    view = memoryview(file)
    for index in sorted(named):
        segment = segments[index]
        content = view[base + segment.offset : base + segment.offset + segment.size]
        for offset in constants:
            if segment.size >= MIN_BYTES and segment.offset != offset and _equal(view, base + offset, content):
                return segment, offset
    return None
