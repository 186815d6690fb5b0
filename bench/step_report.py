"""Measurements of `bench.step` -> Markdown."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.roofline import roofline_rows
from bench.workload import PARTS, VARIANTS, Measurement, Workload

GB = 1e9

NOTES = """\
One update: teacher and student forward, triple loss (KL over all positions, masked-LM, cosine), backward, clipping,
AdamW; random weights, full-length sequences, 15% masked, dropout 0.1 in the student. Each variant ran alone: two warm-up
updates, then the timed ones, the variants taking turns. tokens/s: median [slowest-fastest] of all timed updates; "best s" is
the shortest, and the steadier figure where other programs use the machine. memory (of the first rank):
the process's highest resident set on a CPU, allocated device memory on CUDA; "imports" is what was there before any
model was built. utilisation: FLOPs that the update needs, over its time, over the best bf16 matrix product measured in
the same processes. Hundreds of preemptions a second mean that other programs wanted the same cores: repeat such a run.
Ours tells glibc to keep freed memory, as every rank of train.py does on a CPU; the others run as their users start them.
In the parts, the vocabulary projection belongs to our loss (with its gradients, so that backward lacks them) and to
Hugging Face's teacher and student. The last table sets our parts against a roofline: operations over the GEMM peak or
compulsory bytes over the copy bandwidth, whichever is longer (bench/roofline.py has the formulas)."""


class Result(NamedTuple):
    """All processes of one variant on one batch."""

    workload: Workload
    runs: Sequence[Measurement]

    @property
    def seconds(self) -> list[float]:
        return [seconds for run in self.runs for seconds in run.seconds]

    @property
    def tokens_per_second(self) -> float:
        return self.workload.num_tokens / median(self.seconds)

    @property
    def peak_bytes(self) -> int:
        return max(run.peak_bytes for run in self.runs)

    @property
    def batch(self) -> str:
        batch = f"{self.workload.sequences} x {self.workload.length}"
        return batch if self.workload.micro_batches == 1 else f"{self.workload.micro_batches} of {batch}"


def render(results: Sequence[Result], command: str) -> str:
    """The section of one run: what ran where, the table, the parts, what each side chose."""
    first = results[0]
    peak = max(run.gemm_peak for result in results for run in result.runs)
    preempted = max(run.preemptions_per_second for result in results for run in result.runs)
    rounds, updates = len(first.runs), first.workload.updates
    teacher, student = first.workload.teacher, first.workload.student
    setups = {VARIANTS[r.workload.variant]: r.runs[0].setup for r in results}
    lines = [
        f"## {time.strftime('%Y-%m-%d %H:%M')}: a whole update, {first.workload.size}, "
        f"{teacher.num_layers} -> {student.num_layers} layers",
        "",
        f"    {command}",
        "",
        f"{hardware(first.runs[0])}. torch {version('torch')}, transformers {version('transformers')}. "
        f"bf16 GEMM peak {peak / 1e9:,.0f} GFLOP/s. Rounds: {rounds}, timed updates in each: {updates}. "
        f"Threads were preempted {preempted:,.0f} times a second at worst. Ranks: {first.workload.ranks}. "
        f"Copy bandwidth {first.runs[0].copy_bandwidth / 1e9:,.0f} GB/s.",
        "",
        *speed_table(results, peak),
        "",
        *parts_table(results),
        "",
        *roofline_table(results, peak),
        *(f"- {name}: {setup}" for name, setup in setups.items()),
        "",
        NOTES,
    ]
    return "\n".join(lines) + "\n"


def speed_table(results: Sequence[Result], gemm_peak: float) -> list[str]:
    rows = []
    for result in results:
        speed, slowest, fastest = (
            result.workload.num_tokens / s for s in (median(result.seconds), max(result.seconds), min(result.seconds))
        )
        utilisation = result.workload.flops / median(result.seconds) / (gemm_peak * result.workload.ranks)
        ours, plain = (_same_batch(results, result, variant) for variant in ("ours", "hf_fp32"))
        rows.append(
            (
                result.batch,
                VARIANTS[result.workload.variant],
                f"{_figure(speed)} [{_figure(slowest)}-{_figure(fastest)}]",
                f"{median(result.seconds):.4g}",
                f"{min(result.seconds):.4g}",
                f"{result.peak_bytes / GB:.2f}",
                f"{max(run.baseline_bytes for run in result.runs) / GB:.2f}",
                f"{utilisation:.1%}",
                f"{speed / plain.tokens_per_second:.2f}" if plain else "",
                f"{ours.tokens_per_second / speed:.2f}" if ours else "",
                f"{min(result.seconds) / min(ours.seconds):.3f}" if ours else "",
                f"{ours.peak_bytes / result.peak_bytes:.2f}" if ours else "",
            )
        )
    header = ("batch", "variant", "tokens/s", "s/update", "best s", "peak GB", "imports GB", "utilisation")
    ratios = ("speed / HF fp32", "speed: ours / this", "best s: this / ours", "memory: ours / this")
    return table(header + ratios, rows)


def parts_table(results: Sequence[Result]) -> list[str]:
    """Median seconds of each part of an update."""
    rows = []
    for result in results:
        medians = [median(s for run in result.runs for s in run.parts[part]) for part in PARTS]
        rows.append((result.batch, VARIANTS[result.workload.variant], *(f"{seconds:.4g}" for seconds in medians)))
    return table(("batch", "variant", *(f"{part} s" for part in PARTS)), rows)


def roofline_table(results: Sequence[Result], gemm_peak: float) -> list[str]:
    """Our parts against what they need at least."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        if result.workload.variant == "ours":
            medians = {part: median(s for run in result.runs for s in run.parts[part]) for part in PARTS}
            bandwidth = max(run.copy_bandwidth for run in result.runs)
            rows += roofline_rows(result.workload, medians, gemm_peak * result.workload.ranks, bandwidth)
    if not rows:
        return []
    header = ("batch", "part", "GFLOP", "GB", "least s", "took s", "GFLOP/s", "share of the bound")
    return [*table(header, rows), ""]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def hardware(run: Measurement) -> str:
    """The accelerator where there is one, the processor, its cores and the threads that every process used."""
    info = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {run.num_threads} threads a process"
    return cpu if run.device == "cpu" else f"{run.device}; {cpu}"


def version(package: str) -> str:
    return importlib.metadata.version(package)


def _same_batch(results: Sequence[Result], like: Result, variant: str) -> Result | None:
    return next((r for r in results if r.batch == like.batch and r.workload.variant == variant), None)


def _figure(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f}"
