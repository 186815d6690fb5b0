"""What the command data.prepare does, step by step, by every member of a crew: plan, tokenizer, parts, merge, facts.

Everything unfinished lies in OUTPUT.parts, which the same command finds again: it goes on with the parts that are missing.
"""

import contextlib
import shutil
import time
from collections import Counter
from pathlib import Path

from data.corpus_writer import IndexedDatasetWriter
from data.crew import Crew
from data.encoding import Job, check_bad_share
from data.indexed_dataset import corpus_file
from data.merge import bad_records, described, merge, save_bad_records
from data.parts import flush_folder, flush_path
from data.prepare_plan import PUBLISHING, Request, plan, remove_folder, sha256_of_folder
from data.progress import ProgressReport
from data.sidecar import (
    VERSION,
    FileFacts,
    Sidecar,
    SplitFacts,
    TokenizerFacts,
    file_facts,
    save_beside,
    sidecar_path,
    write_sidecar,
)
from data.sources import REASONS

_PATIENCE = 90.0  # seconds; NFS remembers for 60 that a file was not there


def prepare(request: Request, crew: Crew) -> None:
    """Write the corpus, whole or not at all; every member of the crew calls it.

    Errors: ValueError; OSError for files and a full disk; StoppedError where another member had one.
    """
    with contextlib.ExitStack() as held:
        job = crew.from_first(lambda: plan(request, held))
        progress = held.enter_context(contextlib.closing(ProgressReport(job.size))) if crew.is_first else None
        crew.encode(job, progress)
        crew.from_first(lambda: finish(request, job, progress))


def finish(request: Request, job: Job, progress: ProgressReport | None) -> None:
    """Merge the parts, write what stands beside the corpus, and only then put all of it in its place.

    Errors: OSError; ValueError where too many records are broken or nothing is left.
    """
    _wait_for_parts(job)
    records, bad = _count_bad(job)
    save_bad_records(job, corpus_file(request.output, ".bad.jsonl"))
    check_bad_share(records, bad, job.max_bad_share, bad_records(job))
    staging = job.folder.path / "corpus"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    writers, dropped = merge(job, [str(staging / Path(prefix).name) for prefix in request.outputs])
    for writer, prefix in zip(writers, request.outputs, strict=True):
        facts = save_beside(writer.prefix, job.tokenizer, writer.token_counts)
        _write_facts(writer, request, facts, {} if prefix == request.heldout else dropped)
    flush_folder(staging)
    _publish(request.outputs, staging)
    remove_folder(job.folder.path)
    for writer, prefix in zip(writers, request.outputs, strict=True):
        print(f"wrote {prefix}: {writer.num_documents:,} documents, {writer.num_tokens:,} tokens")
    if progress:
        print(
            f"{progress.seconds:.1f} s, {progress.tokens / progress.seconds:,.0f} tokens/s; dropped {described(dropped)}"
        )
    if bad:
        print(f"the records that gave no document are named in {corpus_file(request.output, '.bad.jsonl')}")


def _publish(prefixes: list[str], staging: Path) -> None:
    """From the staging folder to their places; PREFIX.json last, and what is held out before what it is held out of.

    A kill in the middle leaves no PREFIX.json, and the mark by which the next start knows that it may replace the rest.
    """
    mark = staging.parent / PUBLISHING
    mark.touch()
    flush_path(staging.parent)
    for prefix in prefixes:  # from here on the old corpus, if there is one, is replaced
        sidecar_path(prefix).unlink(missing_ok=True)
    for prefix in reversed(prefixes):
        staged = staging / Path(prefix).name
        for end in (".bin", ".idx", ".token_counts.npy"):
            corpus_file(staged, end).replace(corpus_file(prefix, end))
        _replace_folder(corpus_file(staged, ".tokenizer"), corpus_file(prefix, ".tokenizer"))
    for prefix in reversed(prefixes):
        sidecar_path(staging / Path(prefix).name).replace(sidecar_path(prefix))
        flush_path(sidecar_path(prefix).parent)


def _replace_folder(new: Path, old: Path) -> None:
    """Where both hold the same the old one stays: it may be the very tokenizer that --tokenizer names."""
    if old.exists():
        if sha256_of_folder(new) == sha256_of_folder(old):
            return
        old.rename(new.with_name("replaced.tokenizer"))
    new.rename(old)


def _wait_for_parts(job: Job) -> None:
    """Until all parts are visible here: a shared file system may take a while to show what other hosts have written.

    Errors: FileNotFoundError.
    """
    deadline = time.monotonic() + _PATIENCE
    while missing := job.folder.missing(len(job.items)):
        if time.monotonic() > deadline:
            raise FileNotFoundError(
                f"'{job.folder.path / missing}' was written by another process but is not here after {_PATIENCE:.0f} s: "
                "--output must be on a file system that all hosts share"
            )
        time.sleep(0.5)


def _count_bad(job: Job) -> tuple[int, Counter[str]]:
    """(records of the input, those that gave no document by reason)."""
    records, bad = 0, Counter[str]()
    for item, part in job.folder.all_parts(len(job.items)):
        facts = job.folder.facts(item, part)
        records += facts.records
        bad.update({reason: number for reason, number in facts.dropped.items() if reason in REASONS})
    return records, bad


def _write_facts(
    writer: IndexedDatasetWriter, request: Request, facts: TokenizerFacts, dropped: dict[str, int]
) -> None:
    is_heldout, share = Path(writer.prefix).name == Path(request.heldout).name, request.cleaning.heldout_share
    sidecar = Sidecar(
        version=VERSION,
        tokenizer=facts,
        documents=writer.num_documents,
        tokens=writer.num_tokens,
        dropped=dropped,
        dtype=writer.dtype.name,
        bin=FileFacts(size=writer.num_tokens * writer.dtype.itemsize, sha256=writer.bin_sha256),
        idx=file_facts(corpus_file(writer.prefix, ".idx")),
        inputs=[Path(name).name if Path(name).exists() else name for name in request.inputs],
        split=SplitFacts(part="heldout" if is_heldout else "train", share=share) if share else SplitFacts(),
    )
    write_sidecar(writer.prefix, sidecar)
