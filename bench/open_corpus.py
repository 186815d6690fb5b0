"""How long until a corpus of N documents gives its first batch, and what each process keeps in memory for it.

    python -m bench.open_corpus --documents 1000000000 --shape short --folder /scratch
    python -m bench.open_corpus --documents 1000000 --shape long --folder /scratch

Writes an index of 20 bytes a document and an empty .bin of the right size into --folder, opens them in processes that know
nothing of each other, and removes them: the first one validates and counts, the others find what it left behind; the last
finds the files out of the page cache.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data.batching import BatchLoader, Blend, Corpus, UpdateWindows
from data.index_file import HEADER, MAGIC
from data.sidecar import VERSION, FileFacts, Sidecar, SplitFacts, TokenizerFacts, write_sidecar

_AT_ONCE = 1 << 22
_VOCAB_SIZE = 30_522
SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "mixed": lambda generator, number: generator.lognormal(5.5, 1.2, number) + 1,
    "short": lambda generator, number: generator.integers(8, 127, number),
    "long": lambda generator, number: generator.integers(500_000, 520_000, number),
}
"""Tokens of documents: about 500, log-normal; at most 126, so that each is one sequence; a thousand sequences of 512."""


def write_corpus(prefix: Path, documents: int, shape: str = "mixed") -> None:
    """A corpus whose documents have lengths of this shape; all tokens are 0, and the .bin takes no room on the disk."""
    spans = [(first, min(first + _AT_ONCE, documents)) for first in range(0, documents, _AT_ONCE)]

    def lengths() -> Iterator[np.ndarray]:
        """Made anew for each of the index's arrays: those of a billion documents would fill the memory."""
        for first, last in spans:
            yield SHAPES[shape](np.random.default_rng(first), last - first).astype("<i4")

    tokens, idx = 0, Path(f"{prefix}.idx")
    with idx.open("wb") as file:
        file.write(HEADER.pack(MAGIC, 1, 8, documents, documents + 1))
        for block in lengths():
            file.write(block.data)
        for block in lengths():
            ends = tokens + np.cumsum(block, dtype=np.int64)
            file.write((2 * (ends - block)).data)
            tokens = int(ends[-1])
        for first, last in itertools.chain(spans, [(documents, documents + 1)]):
            file.write(np.arange(first, last).data)
    with Path(f"{prefix}.bin").open("wb") as file:
        file.truncate(2 * tokens)
    np.save(f"{prefix}.token_counts.npy", np.array([tokens] + [0] * (_VOCAB_SIZE - 1)))
    ids = {"cls_id": 101, "sep_id": 102, "mask_id": 103, "pad_id": 0, "unk_id": 100}
    facts = TokenizerFacts(
        fingerprint="",
        vocab_size=_VOCAB_SIZE,
        special_ids=sorted(ids.values()),
        files=f"{prefix.name}.tokenizer",
        **ids,
    )
    sizes = {end: FileFacts(size=Path(f"{prefix}.{end}").stat().st_size, sha256="") for end in ("bin", "idx")}
    sidecar = Sidecar(
        version=VERSION,
        tokenizer=facts,
        documents=documents,
        tokens=tokens,
        dropped={},
        dtype="uint16",
        inputs=[],
        split=SplitFacts(),
        **sizes,
    )
    write_sidecar(prefix, sidecar)


def resident() -> dict[str, float]:
    """MiB of this process: private memory, and the peak with the pages of files that all processes share."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("RssAnon", "VmHWM"))}


def measure(prefix: Path) -> str:
    """A row of the table, of this process."""
    before, started, cpu = resident(), time.perf_counter(), time.process_time()
    corpus = Corpus.open(prefix, max_length=512)
    opened, cpu, after_opening = time.perf_counter() - started, time.process_time() - cpu, resident()
    windows = UpdateWindows(Blend([corpus]), sequences_per_update=4096, seed=1, mask_probability=0.15)
    with BatchLoader(
        windows, rank=0, num_ranks=1, sequences_per_micro_batch=32, first_update=1000, last_update=1001
    ) as loader:
        updates = iter(loader)
        next(next(updates)[1])
        total, after = time.perf_counter() - started, resident()
    return (
        f"{corpus.dataset.num_documents:,} | {corpus.num_sequences:,} | {opened:.2f} ({cpu:.2f}) | {total:.2f} | "
        f"{after_opening['RssAnon'] - before['RssAnon']:.0f} | {after['RssAnon'] - before['RssAnon']:.0f} | "
        f"{after['VmHWM'] - before['VmHWM']:.0f} |"
    )


def drop_from_page_cache(folder: Path) -> None:
    """The files below a folder, which the next process then reads from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--shape", choices=SHAPES, default="mixed")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--prefix", type=Path, help="measure this corpus instead of making one")
    options = parser.parse_args()
    if options.prefix:
        print(measure(options.prefix), flush=True)
        return
    print(
        "| opened | documents | sequences | seconds (of processor time) | first batch of update 1000 after, s | "
        "private MiB, opened | private MiB, first batch | peak MiB, with shared pages |\n|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_corpus(Path(folder) / "x", options.documents, options.shape)
        for name in ("for the first time", "again", "again, nothing in the page cache", "again"):
            if "page cache" in name:
                drop_from_page_cache(Path(folder))
            print(f"| {name} | ", end="", flush=True)
            # In a process of its own: this one's memory remembers the writing.
            subprocess.run([sys.executable, "-m", "bench.open_corpus", "--prefix", f"{folder}/x"], check=True)


if __name__ == "__main__":
    main()
