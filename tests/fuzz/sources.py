"""Target of data/sources: any bytes as a file of any format, cut into parts of any size."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from data.sources import BadRecord, Item, SourceOptions, lines, plan_inputs
from data.sources.record import REASONS
from tests.data.source_files import BY_HAND, COMPRESS, as_csv, as_jsonl, as_wiki
from tests.fuzz.target import Folder, Target, pack, unpack

_TEXTS = ["one\ntwo", 'Grüße, "x"', "東京 😀", "\n\na", " "]
_COMPRESSIONS = list(COMPRESS)
_PLAIN = {
    "x.txt": "\n\n".join(_TEXTS),
    "x.jsonl": as_jsonl(_TEXTS),
    "x.json": as_jsonl(_TEXTS),
    "x.csv": as_csv(_TEXTS),
    "x.tsv": as_csv(_TEXTS, delimiter="\t"),
    "wiki_00": as_wiki(_TEXTS),
    "wiki_01": as_jsonl(_TEXTS),
}
_NAMES = [*_PLAIN, "x.parquet", "x.arrow"]


class SourceFile:
    """One file, and what is read from it."""

    def __init__(self) -> None:
        self.folder = Folder()
        lines._BLOCK_BYTES = 64  # so that blocks end in small inputs, too

    def run(self, data: bytes) -> bool:
        """How the file is called, whether its content is compressed here, part_bytes, each a byte or two; its content."""
        choice, content = unpack(data, 2)
        name, compression, is_compressed, *size = choice[:5].ljust(5, b"\x01")
        suffix = _COMPRESSIONS[compression % len(_COMPRESSIONS)]
        path = _NAMES[name % len(_NAMES)]
        if path in _PLAIN:
            path += suffix
            if is_compressed & 1:
                content = COMPRESS[suffix](content)
        self.folder.write(path, content)
        if not content:
            return False
        part_bytes = 1 + int.from_bytes(bytes(size), "little")
        found = self.folder.attempt(lambda: read(self.plan(path, part_bytes)))
        again = self.folder.attempt(lambda: read(self.plan(path, 1 << 20)))
        assert found == again, f"{path}: parts of {part_bytes} bytes give {found!r:.1000}, the whole {again!r:.1000}"
        if found is None:
            return False
        if path in ("x.txt", "x.jsonl"):
            expected = list(BY_HAND[path[1:]](content))
            assert [d.line if isinstance(d, BadRecord) else d for d in found] == expected
        return True

    def plan(self, path: str, part_bytes: int) -> list[Item]:
        return plan_inputs([str(self.folder.path / path)], SourceOptions(), part_bytes)

    def seeds(self) -> list[bytes]:
        """Every format, compressed before the damage and after it; tables as often in several forms."""
        found = []
        for number, name in enumerate(_PLAIN):
            for compression, suffix in enumerate(_COMPRESSIONS):
                content = _PLAIN[name].encode()
                found.append(pack([bytes([number, compression, 1, 40, 0]), content]))
                if suffix:
                    found.append(pack([bytes([number, compression, 0, 40, 0]), COMPRESS[suffix](content)]))
        for content in _tables():
            number = _NAMES.index("x.parquet" if content.startswith(b"PAR1") else "x.arrow")
            found += [pack([bytes([number, 0, 0, size, 0]), content]) for size in (10, 40, 255)]
        return found


def read(items: list[Item]) -> list[str | BadRecord]:
    """The documents of all parts: those of even numbers are read first, those of odd numbers after them."""
    found: list[str | BadRecord] = []
    for item in items:
        even = {number: list(d) for number, d in item.parts(lambda n: n % 2 == 0, lambda _: None) if d is not None}
        odd = {number: list(d) for number, d in item.parts(lambda n: n % 2 == 1, lambda _: None) if d is not None}
        assert sorted(even | odd) == list(range(len(even) + len(odd)))
        for _, documents in sorted((even | odd).items()):
            found += documents
    for document in found:
        if isinstance(document, BadRecord):
            assert document.reason in REASONS
            assert document.line >= 1
            assert document.detail.isprintable()
        else:
            assert document.encode().strip()
    return found


def _tables() -> Iterator[bytes]:
    table = pa.table({"id": range(len(_TEXTS)), "text": _TEXTS})
    for rows, compression in ((2, "none"), (9, "zstd")):
        stream = io.BytesIO()
        pq.write_table(table, stream, row_group_size=rows, compression=compression)
        yield stream.getvalue()
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        for new in (pa.ipc.new_file, pa.ipc.new_stream):
            stream = io.BytesIO()
            with new(stream, table.schema, options=options) as writer:
                writer.write_table(table, rows)
            yield stream.getvalue()


def sources_target() -> Target:
    file = SourceFile()
    return Target(run=file.run, seeds=file.seeds(), num_parts=2)
