"""Finished parts -> the corpus: bytes are moved and offsets fixed, nothing is tokenized again.

Duplicates are found here, among all documents, in memory that does not grow with them: their digests are dealt to files by
value, and each file is sorted alone.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.cleaning import DIGEST, is_held_out
from data.corpus_writer import IndexedDatasetWriter
from data.encoding import Job
from data.parts import Part

_DIGESTS_AT_ONCE = 1 << 21  # 100 MB while they are sorted
_DOCUMENTS_AT_ONCE = 1 << 14
_RECORD = np.dtype([("digest", "<u8", 2), ("document", "<i8")])


def merge(job: Job, prefixes: list[str]) -> tuple[list[IndexedDatasetWriter], dict[str, int]]:
    """Write PREFIX.bin and .idx of one corpus, or of two where documents are held out: (their writers, documents dropped by
    reason). Errors: OSError; ValueError where nothing is left.
    """
    duplicates = _find_duplicates(job) if job.cleaning.deduplicate else None
    dropped: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(IndexedDatasetWriter(prefix, job.folder.vocab_size)) for prefix in prefixes]
        start = 0
        for part in _parts(job):
            for reason, number in part.facts.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + number
            is_kept = np.ones(part.facts.documents, dtype=bool)
            if duplicates is not None:
                is_kept = duplicates[start : start + part.facts.documents] == 0
            _add(writers, part, is_kept, job.cleaning.heldout_share)
            start += part.facts.documents
        if duplicates is not None and (number := int(duplicates.sum())):
            dropped["duplicate"] = number
        for writer, side in zip(writers, ("", " to hold out"), strict=False):
            if writer.num_tokens == 0:
                raise ValueError(
                    f"the input has no text{side} ({described(dropped)}). Give files that contain (more) documents"
                )
    return writers, dropped


def described(dropped: dict[str, int]) -> str:
    """Documents by reason, for people."""
    return ", ".join(f"{number:,} {reason}" for reason, number in dropped.items()) or "nothing"


def save_bad_records(job: Job, path: Path) -> None:
    """One JSON object a line for every record that gave no document; no file where there is none. Errors: OSError."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for bad in bad_records(job):
            file.write(json.dumps(dict(zip(("file", "line", "reason", "detail"), bad, strict=True))) + "\n")
    partial.replace(path)
    if path.stat().st_size == 0:
        path.unlink()


def bad_records(job: Job) -> Iterator[list[Any]]:
    for item, part in job.folder.all_parts(len(job.items)):
        yield from job.folder.facts(item, part).bad


def _parts(job: Job) -> Iterator[Part]:
    for item, part in job.folder.all_parts(len(job.items)):
        yield job.folder.open(item, part)


def _add(writers: list[IndexedDatasetWriter], part: Part, is_kept: npt.NDArray[np.bool_], heldout_share: float) -> None:
    """The part's documents to the corpora that they belong to."""
    sides = [is_kept]
    if heldout_share:
        is_held = is_held_out(part.digests, heldout_share)
        sides = [is_kept & ~is_held, is_kept & is_held]
    for writer, chosen in zip(writers, sides, strict=True):
        if chosen.all():
            writer.add_documents(part.tokens, part.lengths, part.counts)
            continue
        ends = np.cumsum(part.lengths, dtype=np.int64)
        for first in range(0, len(chosen), _DOCUMENTS_AT_ONCE):
            some = slice(first, first + _DOCUMENTS_AT_ONCE)
            lengths, mask = part.lengths[some], chosen[some]
            tokens = part.tokens[ends[first] - lengths[0] : ends[some][-1]]
            writer.add_documents(tokens[np.repeat(mask, lengths)], lengths[mask])


def _find_duplicates(job: Job) -> npt.NDArray[np.uint8]:
    """(D,) mapped from a file: 1 for each document whose digest an earlier one has."""
    parts = list(job.folder.all_parts(len(job.items)))
    total = sum(job.folder.facts(*part).documents for part in parts)
    with (job.folder.path / "duplicates").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(total, 1))  # a full disk is an error here, and a SIGBUS in a map
    flags = np.memmap(job.folder.path / "duplicates", dtype=np.uint8, mode="r+")
    num_files = max(1, -(-total // _DIGESTS_AT_ONCE))
    paths = [job.folder.path / f"digests-{number:03d}" for number in range(num_files)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        start = 0
        for part in _parts(job):
            records = np.empty(part.facts.documents, dtype=_RECORD)
            records["digest"] = part.digests.view("<u8").reshape(-1, DIGEST.itemsize // 8)
            records["document"] = np.arange(start, start + len(records))
            start += len(records)
            records = _without_repeats(records, flags)  # a text that is everywhere must not fill one of the files
            file_of = records["digest"][:, 1] % np.uint64(num_files)
            for number, file in enumerate(files):
                file.write(records[file_of == number].tobytes())
    for path in paths:
        _without_repeats(np.fromfile(path, dtype=_RECORD), flags)
        path.unlink()
    return flags[:total]


def _without_repeats(records: npt.NDArray[np.void], flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Of the records, (N,) of _RECORD with ascending documents, the first of each digest; the others are flagged."""
    # lexsort is stable, so of equal digests the earliest document comes first.
    records = records[np.lexsort((records["digest"][:, 1], records["digest"][:, 0]))]
    is_repeated = np.zeros(len(records), dtype=bool)
    is_repeated[1:] = (records["digest"][1:] == records["digest"][:-1]).all(axis=1)
    flags[records["document"][is_repeated]] = 1
    return records[~is_repeated]
