"""One member of a crew at work: its share of the input, documents -> tokens -> parts on disk.

Every member runs `encode_share` with the same job and its own number; nothing else decides what it does, and what it leaves
depends on neither.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.cleaning import digests_of, kept_documents, normalized
from data.parts import PartFolder, PartWriter
from data.prepare_config import CleaningConfig
from data.shares import deal
from data.sources import BadRecord, Group, Item
from data.tokenizer import Tokenizer

# A tenth of a second of work or so: long against the cost of a call, and bounds the memory.
_CHARACTERS_AT_ONCE = 1 << 18
_DOCUMENTS_AT_ONCE = 4096
_MOST_BAD = 10_000  # of a part that are named; all are counted
_ENOUGH_RECORDS = 10_000  # after which a member that has not found a single document stops: the wrong field, say

Report = Callable[[int, int, int], None]
"""Told of progress: bytes of input read, documents and tokens encoded, since the last time."""


class StoppedError(Exception):
    """Another member has failed, whose error says why."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a crew is to encode; sent to every member."""

    folder: PartFolder
    items: list[Item]
    tokenizer: Tokenizer
    cleaning: CleaningConfig
    max_bad_share: float
    number: str
    """Of this start, unlike any other's."""

    @property
    def stop_file(self) -> Path:
        """Its presence asks all members to stop."""
        return self.folder.path / f"stop-{self.number}"

    @property
    def size(self) -> int:
        """Bytes of the input."""
        return sum(item.size for item in self.items)


def encode_share(job: Job, member: int, num_members: int, report: Report) -> None:
    """Make the parts of this member that are not finished yet.

    Errors: ValueError and OSError of the input and of the disk; StoppedError.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Rust threads of every member would fight over the same cores
    shares = deal([item.size for item in job.items], [not isinstance(item, Group) for item in job.items], num_members)
    records, bad = 0, Counter[str]()
    for share in shares[member]:
        item, turn = job.items[share.item], share.turn
        read = 0

        def is_wanted(part: int, number: int = share.item, turn: tuple[int, ...] = turn) -> bool:
            return turn[part % len(turn)] == member and not job.folder.finished(number, part)

        def on_bytes(number: int, weight: float = turn.count(member) / len(turn)) -> None:
            nonlocal read
            read += number
            report(int(number * weight), 0, 0)

        if _is_finished(job.folder, share.item):
            report(item.size * turn.count(member) // len(turn), 0, 0)
            continue
        number_of_parts = 0
        for part, documents in item.parts(is_wanted, on_bytes):
            number_of_parts = part + 1
            if job.stop_file.exists():
                raise StoppedError
            if documents is not None:
                seen = _encode_part(job, share.item, part, documents, report)
                records, bad = records + seen.records, bad + seen.bad_reasons
                if records == bad.total() > _ENOUGH_RECORDS:
                    check_bad_share(records, bad, job.max_bad_share, iter(seen.bad))
        job.folder.save_count(share.item, number_of_parts)


def _is_finished(folder: PartFolder, item: int) -> bool:
    """Whether all parts of the item are, so that it need not be read."""
    try:
        return all(folder.finished(item, part) for part in range(folder.count(item)))
    except (OSError, ValueError):
        return False


def check_bad_share(records: int, bad: Counter[str], most: float, examples: Iterator[list[Any]]) -> None:
    """Errors: ValueError where more than the share `most` of the records gave no document."""
    number = bad.total()
    if number <= most * records:
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in bad.items())
    shown = "; ".join(f"{file}, line {line}: {why}" for file, line, _, why in itertools.islice(examples, 3))
    raise ValueError(
        f"{number:,} of {records:,} records, {number / records:.2%}, gave no document ({reasons}), more than "
        f"--max_bad_share {most:g} allows: {shown}. Mend the input, or raise --max_bad_share; what is done already is kept"
    )


def _encode_part(job: Job, item: int, part: int, documents: Iterator[str | BadRecord], report: Report) -> PartWriter:
    with PartWriter(folder=job.folder, item=item, part=part) as writer:
        for texts in _chunks(_good(documents, writer)):
            number = writer.tokens
            _encode(job, texts, writer)
            report(0, len(texts), writer.tokens - number)
        writer.commit()
    return writer


def _good(documents: Iterable[str | BadRecord], writer: PartWriter) -> Iterator[str]:
    """The documents; the records that gave none are noted."""
    for document in documents:
        writer.records += 1
        if isinstance(document, str):
            yield document
            continue
        writer.drop({document.reason: 1})
        writer.bad_reasons[document.reason] += 1
        if len(writer.bad) < _MOST_BAD:
            writer.bad.append([document.file, document.line, document.reason, document.detail])


def _encode(job: Job, texts: list[str], writer: PartWriter) -> None:
    """Some documents into the part, without those that cleaning drops."""
    cleaning, tokenizer = job.cleaning, job.tokenizer
    texts = normalized(texts, cleaning.normalize)
    tokens, lengths = tokenizer.encode_packed(texts, job.folder.dtype)
    kept, dropped = kept_documents(tokens, lengths, tokenizer.unk_id, cleaning)
    writer.drop(dropped)
    if dropped:
        tokens, lengths = tokens[np.repeat(kept, lengths)], lengths[kept]
        texts = [text for text, stays in zip(texts, kept.tolist(), strict=True) if stays]
    if cleaning.needs_digests:
        writer.add(tokens, lengths, digests_of(texts))
    else:
        writer.add(tokens, lengths)


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Consecutive documents, as many as fit a chunk; one that is longer is a chunk of its own."""
    chunk: list[str] = []
    characters = 0
    for text in documents:
        if chunk and (characters + len(text) > _CHARACTERS_AT_ONCE or len(chunk) == _DOCUMENTS_AT_ONCE):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += len(text)
    if chunk:
        yield chunk
