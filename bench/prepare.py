"""Preparing a corpus, side by side with what people use instead: tokens/s from compressed text to token ids on disk.

    python -m bench.prepare --input wiki/en-2018-0[0-3].jsonl.xz \
      --tokenizer vocab/bert-base-uncased-vocab.txt --rounds 3

Every side runs as a user would start it, start-up included, in processes of its own; sides take turns. All write the same
tokens, which is checked.
"""

import argparse
import hashlib
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from bench.step import append_to
from bench.step_report import table
from data.indexed_dataset import IndexedDataset
from data.sidecar import file_facts
from data.tokenizer import load_tokenizer

NAMES = {"ours": "data.prepare", "datasets_map": "datasets.map", "plain_loop": "loop with tokenizers"}
_SAMPLE_SECONDS = 0.2


@dataclass
class Measured:
    """A side with a number of processes, in all rounds."""

    side: str
    processes: int
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    sha256: str = ""
    tokens: int = 0


def memory_of(process: psutil.Process) -> int:
    """Proportional set size of a process and its descendants: pages that they share count once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) * 1024
    return total


def command(measured: Measured, inputs: list[str], tokenizer: str, output: Path) -> list[str]:
    if measured.side == "ours":
        program = ["data.prepare", "--output", f"{output}/x", "--workers", str(measured.processes)]
    else:
        processes = str(measured.processes)
        program = ["bench.prepare_sides", measured.side, "--output", str(output), "--processes", processes]
    return [sys.executable, "-m", *program, "--input", *inputs, "--tokenizer", tokenizer]


def measure(measured: Measured, inputs: list[str], tokenizer: str, folder: Path) -> None:
    output = folder / "output"
    started = time.perf_counter()
    with subprocess.Popen(
        command(measured, inputs, tokenizer, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            measured.peak_bytes = max(measured.peak_bytes, memory_of(watched))
            time.sleep(_SAMPLE_SECONDS)
    measured.seconds.append(time.perf_counter() - started)
    if process.returncode:
        raise SystemExit(f"{NAMES[measured.side]} ended with exit code {process.returncode}")
    if measured.side == "ours":
        measured.tokens = IndexedDataset(output / "x").num_tokens
    measured.sha256 = tokens_sha256(measured.side, output)
    shutil.rmtree(output)


def tokens_sha256(side: str, output: Path) -> str:
    """Of all token ids in order, as uint16."""
    if side == "datasets_map":
        import datasets
        import numpy as np

        digest = hashlib.sha256()
        parts = sorted(output.glob("tokenized*.arrow"))
        for part in parts:
            column = datasets.Dataset.from_file(str(part)).data.column("input_ids")
            for chunk in column.chunks:
                digest.update(chunk.flatten().to_numpy().astype(np.uint16).data)
        return digest.hexdigest()
    return file_facts(output / ("x.bin" if side == "ours" else "plain.bin")).sha256


def report(all_measured: list[Measured], num_tokens: int) -> list[str]:
    base = {m.processes: statistics.median(m.seconds) for m in all_measured if m.side == "datasets_map"}
    single = {m.side: statistics.median(m.seconds) for m in all_measured if m.processes == 1}
    rows = []
    for m in all_measured:
        median = statistics.median(m.seconds)
        rate = f"{num_tokens / median:,.0f} [{num_tokens / max(m.seconds):,.0f}-{num_tokens / min(m.seconds):,.0f}]"
        rows.append(
            [
                *(NAMES[m.side], str(m.processes), rate, f"{num_tokens / median / m.processes:,.0f}"),
                f"{base[m.processes] / median:.2f}" if m.processes in base else "",
                f"{single[m.side] / median:.2f}" if m.side in single else "",
                f"{m.peak_bytes / 2**20:,.0f}",
            ]
        )
    header = ["side", "processes", "tokens/s", "a core", "speed / datasets.map", "speed / one process", "peak MiB"]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--sides", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--append", default="", help="file to append the table to")
    options = parser.parse_args()
    all_measured = [Measured(side, processes) for processes in options.processes for side in options.sides]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tokenizer = load_tokenizer(options.tokenizer)
        tokenizer.save(f"{folder}/tokenizer")  # which all sides can read
        for _ in range(options.rounds):
            for measured in all_measured:
                measure(measured, options.input, f"{folder}/tokenizer", Path(folder))
    num_tokens = max(measured.tokens for measured in all_measured)
    agree = len({measured.sha256 for measured in all_measured}) == 1
    lines = [
        f"## {datetime.now():%Y-%m-%d %H:%M}: preparing a corpus",
        "",
        f"    python -m bench.prepare {shlex.join(sys.argv[1:])}",
        "",
        f"{num_tokens:,} tokens; rounds: {options.rounds}; the sides wrote "
        f"{'the same' if agree else 'DIFFERENT'} tokens. tokens/s: median [slowest-fastest], start-up included.",
        "",
        *report(all_measured, num_tokens),
    ]
    print("\n".join(lines))
    if options.append:
        append_to(options.append, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
