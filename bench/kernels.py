"""Every fused operation alone, by every implementation that runs here: time, memory, bandwidth, gradient error.

    python -m bench.kernels
    python -m bench.kernels --append bench/RESULTS.md --output runs/kernels

bf16 throughout, dropout 0.1 where the operation has one, forward and backward together. On a CPU every case runs in a
process of its own, since memory is the process's.
"""

import argparse
import dataclasses
import json
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import kernels_small, kernels_vocab
from bench.kernels_cases import BYTES_AN_ELEMENT, CHUNK_TOKENS, LOGITS_TILES, OPERATIONS, SIZES, Case, Figures
from bench.kernels_worker import copy_bandwidth, measure

ROOT = Path(__file__).resolve().parent.parent
GROWTH_OF_TOKENS, GROWTH_OF_VOCABULARY = (0.25, 0.5, 2), (2, 4)
"""Times the size's own, which stands in the table before."""
Result = tuple[Case, Figures]

NOTES = """\
Forward and backward together, bf16, the shortest of {repetitions} repetitions after a warm-up, caches overwritten in
between. memory: the most at once beyond inputs, weights and gradients. error: of d(features) and d(weight) against
float64, distillation alone, the student near its teacher ({distance} of its features' size). moved: bytes that a fused
operation has to move, over the time; copy: the same as a share of a plain copy's {copy:,.0f} GB/s."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=(__doc__ or "").splitlines()[0])
    default = "base" if torch.cuda.is_available() else "small"
    parser.add_argument("--size", choices=SIZES, default=default, help=f"shapes; here {default}")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS, help="default: all")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="implementations to leave out")
    parser.add_argument("--append", type=Path, metavar="FILE", help="Markdown file to add the tables to")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for kernels.json, every figure")
    return parser.parse_args(arguments)


def implementations(operation: str, device: torch.device) -> list[str]:
    if operation == "vocab_loss":
        return kernels_vocab.implementations(device)
    if operation == "logits":
        return kernels_vocab.logits_kernels(device)
    return kernels_small.implementations(operation, device)


def cases_of(options: argparse.Namespace, device: torch.device) -> tuple[list[Case], list[Case]]:
    """The operations at one size, and how the vocabulary loss grows from there."""
    size = SIZES[options.size]

    def cases(operation: str, **changes: int) -> list[Case]:
        shape: dict[str, Any] = {"tokens": size.tokens, "vocab": size.vocab, **changes}
        names = [name for name in implementations(operation, device) if name not in options.without]
        return [Case(operation=operation, implementation=name, size=options.size, **shape) for name in names]

    growth = []
    if "vocab_loss" in options.operations:
        changes = [{"tokens": int(share * size.tokens)} for share in GROWTH_OF_TOKENS]
        changes += [{"vocab": times * size.vocab} for times in GROWTH_OF_VOCABULARY]
        grown = [case for change in changes for case in cases("vocab_loss", **change)]
        growth = [case for case in grown if case.implementation != "compile"]  # each shape would be compiled anew
        chunks = [case for chunk in CHUNK_TOKENS[device.type] for case in cases("vocab_loss", chunk_tokens=chunk)]
        growth += [case for case in chunks if case.implementation in ("torch", "triton")]
    every = [case for operation in options.operations for case in cases(operation)]
    tiles = [
        dataclasses.replace(case, tile=tile) for case in every if case.operation == "logits" for tile in LOGITS_TILES
    ]
    return every + tiles, growth


def run_case(case: Case, device: torch.device) -> Figures:
    """Here on CUDA; on a CPU in a new process. One that ends badly is reported and does not stop the others."""
    if device.type == "cuda":
        try:
            figures = measure(case)
        except Exception as error:  # whatever another's kernel raises, out of memory among it
            traceback.print_exc()
            figures = Figures(seconds=0.0, peak_bytes=0, failure=type(error).__name__)
    else:
        command = [sys.executable, "-m", "bench.kernels_worker", json.dumps(dataclasses.asdict(case))]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode == 0:
            figures = Figures(**json.loads(process.stdout.splitlines()[-1]))
        else:
            print(process.stderr, file=sys.stderr)
            figures = Figures(seconds=0.0, peak_bytes=0, failure=f"exit code {process.returncode}")
    print(
        f"{case.operation} {case.implementation} {case.tokens} x {case.vocab}: "
        f"{figures.failure or f'{1e3 * figures.seconds:,.2f} ms'}",
        file=sys.stderr,
    )
    return figures


def vocab_table(results: Sequence[Result]) -> list[str]:
    rows = [
        "| tokens x vocabulary | vocabulary loss | ms | memory, GB | error, features | error, weight |",
        "|---|---|---|---|---|---|",
    ]
    for case, figures in results:
        name = kernels_vocab.NAMES.get(case.implementation, f"ours, {case.implementation}")
        name += f", chunks of {case.chunk_tokens}" if case.chunk_tokens else ""
        rows.append(f"| {case.tokens:,} x {case.vocab:,} | {name} | {vocab_cells(figures)} |")
    return rows


def vocab_cells(figures: Figures) -> str:
    if figures.failure:
        return f"{figures.failure} | | |"
    return (
        f"{1e3 * figures.seconds:,.2f} | {figures.peak_bytes / 1e9:.3f} | "
        f"{figures.features_error:.1e} | {figures.weight_error:.1e}"
    )


def small_table(results: Sequence[Result], copy: float) -> list[str]:
    rows = ["| operation | implementation | ms | memory, GB | moved, GB/s | copy |", "|---|---|---|---|---|---|"]
    for case, figures in results:
        name = kernels_small.NAMES.get(case.implementation, f"ours, {case.implementation}")
        name += f", {case.tile[0]} columns, {case.tile[1]} warps" if case.tile[0] else ""
        cells = f"{figures.failure} | | |"
        if not figures.failure:
            moved = case.elements * BYTES_AN_ELEMENT[case.operation] / figures.seconds
            cells = f"{1e3 * figures.seconds:,.3f} | {figures.peak_bytes / 1e9:.3f} | "
            cells += f"{moved / 1e9:,.0f} | {moved / copy:.0%}"
        rows.append(f"| {case.operation} | {name} | {cells} |")
    return rows


def render(results: Sequence[Result], growth: Sequence[Result], copy: float, device: torch.device, command: str) -> str:
    """Markdown."""
    size = results[0][0].shape
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    lines = [
        f"## Fused operations, {time.strftime('%Y-%m-%d')}",
        "",
        f"`{command}` on {name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}; {size}",
        "",
        NOTES.format(repetitions=size.repetitions, distance=kernels_vocab.DISTANCE, copy=copy / 1e9),
    ]
    vocab = [result for result in results if result[0].operation == "vocab_loss"]
    small = [result for result in results if result[0].operation != "vocab_loss"]
    if vocab:
        lines += ["", *vocab_table(vocab), "", "Growth, and other chunks:", "", *vocab_table(growth)]
    if small:
        lines += ["", *small_table(small, copy)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    options = parse_arguments(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases, growth = cases_of(options, device)
    if not cases:
        sys.exit(f"error: nothing of {' '.join(options.operations)} runs on {device.type}")
    results, grown = ([(case, run_case(case, device)) for case in part] for part in (cases, growth))
    copy = copy_bandwidth(device)
    section = render(results, grown, copy, device, f"python -m bench.kernels {shlex.join(arguments)}".rstrip())
    print(section, end="")
    if options.append:
        gap = "\n" if options.append.exists() and options.append.stat().st_size else ""
        with options.append.open("a", encoding="utf-8") as file:
            file.write(gap + section)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        rows = [dataclasses.asdict(case) | dataclasses.asdict(figures) for case, figures in [*results, *grown]]
        figures_of_all = {"copy_bandwidth": copy, "device": str(device), "cases": rows}
        (options.output / "kernels.json").write_text(json.dumps(figures_of_all, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
