"""What the tests of data/sources share: files in every form, and what is read from them."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zstandard

from data.sources import BadRecord, Item, SourceOptions, plan_inputs

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
}
WHOLE = 1 << 30


def write(path: Path, content: str | bytes) -> str:
    """Compressed as the suffix says."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return str(path)


def as_jsonl(texts: Sequence[str], field: str = "text") -> str:
    return "".join(json.dumps({"id": n, field: text}, ensure_ascii=n % 2 == 0) + "\n" for n, text in enumerate(texts))


def as_csv(texts: Sequence[str], field: str = "text", delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([["id", field], *([number, text] for number, text in enumerate(texts))])
    return stream.getvalue()


def as_wiki(texts: Sequence[str]) -> str:
    blocks = (
        f'<doc id="{n}" url="https://x/?curid={n}" title="T">\n{text}\n\n</doc>\n\n' for n, text in enumerate(texts)
    )
    return "".join(blocks)


def planned(inputs: Sequence[str | Path], part_bytes: int = WHOLE, **options: object) -> list[Item]:
    return plan_inputs([str(given) for given in inputs], SourceOptions(**options), part_bytes)  # type: ignore[arg-type]


def read_parts(items: Sequence[Item]) -> list[list[str | BadRecord]]:
    """The documents of every part, checking what holds for any item: numbers, progress, that skipping changes nothing."""
    found = []
    for item in items:
        told: list[int] = []
        parts = []
        for number, documents in item.parts(lambda number: True, told.append):
            assert number == len(parts)
            assert documents is not None
            parts.append(list(documents))
        assert sum(told) == item.size
        assert min(told, default=1) > 0
        for every, first in ((2, 0), (2, 1), (3, 1), (1 << 30, 1)):
            told.clear()
            for number, documents in item.parts(lambda number: number % every == first, told.append):  # noqa: B023
                assert (documents is not None) == (number % every == first)
                if documents is not None:
                    assert list(documents) == parts[number]
            assert sum(told) == item.size
        found += parts
    return found


def read(inputs: Sequence[str | Path], part_bytes: int = WHOLE, **options: object) -> list[str | BadRecord]:
    """Everything that is read from the inputs, in order."""
    return [document for part in read_parts(planned(inputs, part_bytes, **options)) for document in part]


def text_by_hand(content: bytes) -> Iterator[str | int]:
    """The documents of a text file, or the line of one that is broken, by a description other than the reader's."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    number = 0
    while number < len(lines):
        document: list[tuple[int, bytes]] = []
        while number < len(lines) and re.fullmatch(rb"[ \t\r\x0b\x0c]*", lines[number]) is None:
            document.append((number + 1, lines[number].rstrip(b"\r")))
            number += 1
        number += 1
        if document:
            broken = [line for line, text in document if "\ufffd" in text.decode(errors="replace")]
            text = "\n".join(text.decode(errors="replace") for _, text in document)
            yield broken[0] if broken else text if text.strip() else document[0][0]


def jsonl_by_hand(content: bytes) -> Iterator[str | int]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = json.loads(line.decode())["text"] if line.decode().strip() else None
            if text is not None:
                yield text if text.encode().decode().strip() else number
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            yield number


BY_HAND = {".txt": text_by_hand, ".jsonl": jsonl_by_hand}
