"""One copy of every tensor in a .pte: what XNNPACK and ExecuTorch's own kernels both read is written once.

A program keeps each of XNNPACK's weights in a segment of its own, and the constants of all other kernels in one. A masked LM's
vocabulary projection is the word embedding, so it would be in the file twice: more than a quarter of it. Here the list of
segments says of such a weight that it is where the constant is, and its own bytes are cut out.
Format: schema/program.fbs and schema/extended_header.cpp of ExecuTorch, flatbuffers' tables; all numbers little-endian.
"""

import struct
from typing import NamedTuple

HEADER = 8
"""Where the extended header begins: "eh00", u32 its length, u64 where the program ends, u64 where segments begin, u64 their
bytes."""
SEGMENTS_BEGIN, SEGMENTS_BYTES = HEADER + 16, HEADER + 24
SEGMENTS, CONSTANT_SEGMENT, NAMED_DATA = 4, 5, 7
"""Fields of the schema's Program, in its order."""
MIN_BYTES = 256
"""Tensors below that share nothing: all zeros are all zeros."""


class Segment(NamedTuple):
    """Part of the file, and where the file says so."""

    written_at: int
    """The offset's own position in the file; 0 for the first segment, whose offset is 0 and not written."""
    offset: int
    """From where segments begin."""
    size: int


def share_tensors(data: bytes) -> bytes:
    """The same program, shorter by the weights of XNNPACK's that are constants too."""
    file = bytearray(data)
    assert file[HEADER : HEADER + 4] == b"eh00", "ExecuTorch writes this header wherever there are segments"
    segments, constants, named = _read(file)
    for index in sorted(named):
        offset = _find(file, segments[index], constants)
        if offset is not None:
            _move(file, segments[index], offset)
            segments, constants, named = _read(file)
    return bytes(file)


def _read(file: bytearray) -> tuple[list[Segment], list[int], set[int]]:
    """All segments, offsets of the constants, and which segments are XNNPACK's weights."""
    program = _pointed(file, 0)
    segments = []
    for table in _tables(file, _field(file, program, SEGMENTS)):
        offset, size = _field(file, table, 0), _field(file, table, 1)
        segments.append(Segment(offset, _number(file, "<Q", offset), _number(file, "<Q", size)))
    where = _pointed(file, _field(file, program, CONSTANT_SEGMENT))
    first = segments[_number(file, "<I", _field(file, where, 0))].offset
    offsets = _pointed(file, _field(file, where, 1))
    (count,) = struct.unpack_from("<I", file, offsets)
    constants = [first + offset for offset in struct.unpack_from(f"<{count}Q", file, offsets + 4)]
    names = _tables(file, _field(file, program, NAMED_DATA))
    return segments, constants, {_number(file, "<I", _field(file, name, 1)) for name in names}


def _field(file: bytearray, table: int, index: int) -> int:
    """Position of a field of a table; 0 where it is not written, because it is 0 or empty."""
    (back,) = struct.unpack_from("<i", file, table)
    (size,) = struct.unpack_from("<H", file, table - back)
    entry = 4 + 2 * index
    offset = struct.unpack_from("<H", file, table - back + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def _number(file: bytearray, kind: str, position: int) -> int:
    return struct.unpack_from(kind, file, position)[0] if position else 0


def _pointed(file: bytearray, position: int) -> int:
    """What the relative pointer at a position points at."""
    return position + struct.unpack_from("<I", file, position)[0]


def _tables(file: bytearray, position: int) -> list[int]:
    """Of the vector of tables that a field points at."""
    if not position:
        return []
    vector = _pointed(file, position)
    (count,) = struct.unpack_from("<I", file, vector)
    return [_pointed(file, vector + 4 + 4 * i) for i in range(count)]


def _find(file: bytearray, segment: Segment, constants: list[int]) -> int | None:
    """The offset of a constant that begins with the bytes of a segment."""
    if segment.size < MIN_BYTES or segment.offset in constants:
        return None
    (begin,) = struct.unpack_from("<Q", file, SEGMENTS_BEGIN)
    with memoryview(file) as view:
        content = view[begin + segment.offset : begin + segment.offset + segment.size]
        for offset in constants:
            if view[begin + offset : begin + offset + segment.size] == content:
                return offset
    return None


def _move(file: bytearray, segment: Segment, offset: int) -> None:
    """Points a segment at `offset`, cuts its bytes out, and moves all that follows."""
    segments, _, _ = _read(file)
    begin, size = struct.unpack_from("<QQ", file, SEGMENTS_BEGIN)
    end = min((other.offset for other in segments if other.offset > segment.offset), default=size)
    gap = end - segment.offset  # with the padding after it, so what follows stays aligned
    for other in segments:
        if other.offset > segment.offset:
            struct.pack_into("<Q", file, other.written_at, other.offset - gap)
    struct.pack_into("<Q", file, segment.written_at, offset)
    struct.pack_into("<Q", file, SEGMENTS_BYTES, size - gap)
    del file[begin + segment.offset : begin + end]
