"""`train.py --plan N` in words: settings and who set them, memory, work, time and disk of a run that is not started."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from data.blend_report import contributions, repetitions
from planning import Workload, clock, probe, update_flops
from training.distributed import Ranks, agree
from training.engine_memory import checkpoint_bytes

LINE_BYTES = 4000
"""Of a line of metrics in metrics.jsonl, TensorBoard and log.txt together (measured: 3.4 kB)."""
STAGED = 1
"""Checkpoints beside those that are kept, while one is written."""


def print_plan(work: Workload, ranks: Ranks, flags: Mapping[str, Mapping[str, Any]]) -> None:
    """`flags` by group, as parsed. Every rank must call it, since all probe at once; rank 0 prints."""
    num_updates = agree(ranks, lambda: work.num_updates)
    timed = agree(ranks, lambda: probe(work, ranks.rank))
    if not ranks.is_first:
        return
    lines = [
        f"plan for {work.num_ranks} ranks; nothing is trained or written",
        "",
        "settings",
        *settings(work, flags, sys.argv[1:]),
        "",
        "memory of a rank at its peak",
        *memory(work),
        "",
        "data",
        *data(work, num_updates),
        "",
        "work",
    ]
    windows = work.sampled_windows()
    tokens = sum(window.attended for window in windows) / len(windows)
    flops = sum(update_flops(window, work.inputs, work.objective) for window in windows) / len(windows)
    seconds = timed.update_seconds(tokens / work.num_ranks)
    lines += [
        f"  updates {num_updates:,} of {work.ds.sequences_per_update:,} sequences, {tokens:,.0f} tokens on average",
        f"  tokens {num_updates * tokens:,.0f}",
        f"  FLOPs {flops:.3g} an update, {num_updates * flops:.3g} in all",
        "",
        f"time, from {timed.micro_batches} micro-batches of {timed.tokens / timed.micro_batches:,.0f} tokens tried here "
        f"({timed.seconds / timed.micro_batches:.3f} s each)",
        f"  update {clock(seconds)} ({clock(timed.optimizer_seconds)} of it the optimizer), "
        f"{tokens / seconds:,.0f} tokens/s, {flops / seconds / work.num_ranks / 1e12:.3g} TFLOP/s a rank",
        f"  training {clock(num_updates * seconds)}, without evaluation, checkpoints and communication (bench/SCALING.md)",
        *_assumption(work, ranks),
        "",
        "disk",
        *disk(work, num_updates),
    ]
    print("\n".join(lines), flush=True)


def settings(work: Workload, flags: Mapping[str, Mapping[str, Any]], arguments: list[str]) -> Iterator[str]:
    """Every value with who set it: a flag, its default, the JSON, or a derivation."""
    given = {_flag_name(text) for text in arguments if text.startswith("--")}
    for group in flags.values():
        for name, value in group.items():
            if name not in ("local_rank", "plan"):
                yield f"  {name} {value!r} ({'flag' if name in given else 'default'})"
    for key, value in _flat(work.ds.raw):
        if key != "gradient_accumulation_steps":
            yield f"  {key} {value!r} ({work.ds.path})"
    ds = work.ds
    derived = f"{ds.sequences_per_update} / ({ds.sequences_per_micro_batch} x {work.num_ranks} ranks)"
    yield f"  micro_batches_per_update {ds.micro_batches_per_update} (derived: {derived})"
    updates = "--max_updates" if work.run.max_updates else f"{work.run.epochs:g} epochs of the text"
    yield f"  num_updates {work.num_updates} (derived: {updates})"
    yield f"  warm_up_updates {round(work.run.warmup_share * work.num_updates)} (derived: warmup_share x num_updates)"
    for choice in work.inputs.choices:
        yield f"  {choice} (derived)"
    for warning in ds.warnings:
        yield f"  warning: {ds.path}: {warning}"


def _flag_name(text: str) -> str:
    name = text.partition("=")[0].removeprefix("--").replace("-", "_")
    return name.removeprefix("no_")


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def data(work: Workload, num_updates: int) -> Iterator[str]:
    num_sequences = num_updates * work.ds.sequences_per_update
    for line in contributions(work.inputs.blend, num_sequences):
        yield f"  {line}"
    for warning in (*work.inputs.warnings, *repetitions(work.inputs.blend, num_sequences)):
        yield f"  warning: {warning}"


def memory(work: Workload) -> Iterator[str]:
    items, peak = work.memory(), work.peak()
    for name, size in items.items():
        yield f"  {size / 1e6:10,.1f} MB  {name}"
    if peak > sum(items.values()):
        yield f"  {(peak - sum(items.values())) / 1e6:10,.1f} MB  more while the models are loaded"
    available, where = _available(work)
    verdict = "" if peak <= available else ": DOES NOT FIT. Lower train_micro_batch_size_per_gpu"
    yield f"  {peak / 1e6:10,.1f} MB  together, of {available / 1e6:,.1f} MB {where}{verdict}"


def _available(work: Workload) -> tuple[float, str]:
    if work.device.type == "cuda":
        return torch.cuda.mem_get_info(work.device)[1], "on this GPU"
    peers = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    free = int(text.split("MemAvailable:")[1].split()[0]) * 1024
    return free / peers, f"available here for each of {peers} ranks" if peers > 1 else "available here"


def _assumption(work: Workload, ranks: Ranks) -> list[str]:
    if work.num_ranks == ranks.num_ranks:
        return []
    what = "GPU like this one" if work.device.type == "cuda" else f"host with {torch.get_num_threads()} cores to itself"
    return [f"  tried on {ranks.num_ranks} rank: each of the {work.num_ranks} is taken to have a {what}"]


def disk(work: Workload, num_updates: int) -> list[str]:
    kept = min(work.run.keep_checkpoints + STAGED, 1 + num_updates // work.run.checkpoint_every)
    one = checkpoint_bytes(sum(work.elements))
    student = 4 * work.inputs.student.config.num_parameters
    logs = LINE_BYTES * (num_updates // work.run.log_every + 1)
    need = kept * one + student + logs
    place = Path(work.run.output or "runs").absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    verdict = "" if need <= free else ": NOT ENOUGH. Choose another --output, or fewer --keep_checkpoints"
    return [
        f"  {kept * one / 1e6:10,.1f} MB  {kept} checkpoints of {one / 1e6:,.1f} MB (one while it is written)",
        f"  {student / 1e6:10,.1f} MB  student",
        f"  {logs / 1e6:10,.1f} MB  metrics, TensorBoard and log",
        f"  {need / 1e6:10,.1f} MB  together, of {free / 1e6:,.1f} MB free in {place}{verdict}",
    ]
