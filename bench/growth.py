"""How time and memory of an update grow with tokens, vocabulary and sequence length: ours beside the eager version.

    python -m bench.growth
    python -m bench.growth --append bench/RESULTS.md

One thing grows at a time, from a batch of 8 x 128 tokens and BERT's vocabulary. Every point is a process of its own.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bench.step import append_to, run_process
from bench.step_report import GB, hardware, table, version
from bench.workload import VARIANTS, VOCAB_SIZE, Measurement, Workload
from command_line import parse

EAGER = "hf_autocast"


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """What to measure."""

    size: Literal["base", "small", "tiny"] = "small"
    """The pair of bench.step."""
    sequences: tuple[int, ...] = (2, 4, 8, 16)
    """Of 128 tokens: the batch grows."""
    vocabularies: tuple[int, ...] = (8192, VOCAB_SIZE, 65536, 131072)
    """Words: the projection grows, on 8 x 128 tokens."""
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    """Tokens per sequence: attention grows, on 1,024 tokens in all."""
    updates: int = 2
    """Timed updates at each point; the best counts."""
    append: str = ""
    """Markdown file to add the table to."""


def points(config: GrowthConfig) -> Iterator[tuple[str, Workload]]:
    """(what grows, the update)."""

    def update(sequences: int, length: int, vocab_size: int = VOCAB_SIZE) -> Workload:
        return Workload(
            variant="ours",
            size=config.size,
            length=length,
            sequences=sequences,
            updates=config.updates,
            vocab_size=vocab_size,
        )

    for sequences in config.sequences:
        yield f"batch: {sequences * 128:,} tokens", update(sequences, 128)
    for vocab_size in config.vocabularies:
        yield f"vocabulary: {vocab_size:,} words", update(8, 128, vocab_size)
    for length in config.lengths:
        yield f"sequence: {length} tokens", update(max(1, 1024 // length), length)


def measure_all(config: GrowthConfig) -> list[tuple[str, Workload, Measurement, Measurement | None]]:
    """Each point with ours and, where the machine's memory suffices, the eager version."""
    found = []
    for name, work in points(config):
        ours = run_process(work)
        eager: Measurement | None = None
        try:
            eager = run_process(dataclasses.replace(work, variant=EAGER))
        except RuntimeError as error:
            print(error, file=sys.stderr)
        print(f"{name}: {min(ours.seconds):.3f} s", file=sys.stderr)
        found.append((name, work, ours, eager))
    return found


def render(config: GrowthConfig, command: str) -> str:
    found = measure_all(config)
    rows = []
    for name, work, ours, eager in found:
        cells = [name, *(cell for run in (ours, eager) for cell in _cells(work, run))]
        ratio = f"{min(eager.seconds) / min(ours.seconds):.2f}" if eager else ""
        rows.append((*cells, ratio))
    header = ["what grows"]
    for side in (VARIANTS["ours"], VARIANTS[EAGER]):
        header += [f"{side}: s/update", "us/token", "peak GB"]
    lines = [
        f"## {time.strftime('%Y-%m-%d %H:%M')}: growth of an update, {config.size} pair",
        "",
        f"    {command}",
        "",
        f"{hardware(found[0][2])}. torch {version('torch')}, transformers {version('transformers')}. Best of "
        f"{config.updates} updates; memory as in bench.step.",
        "",
        *table((*header, "speed: ours / eager"), rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(work: Workload, run: Measurement | None) -> tuple[str, str, str]:
    if run is None:
        return "failed", "", ""
    seconds = min(run.seconds)
    return f"{seconds:.3f}", f"{1e6 * seconds / work.num_tokens:.0f}", f"{run.peak_bytes / GB:.2f}"


if __name__ == "__main__":
    given = sys.argv[1:]
    growth = parse(GrowthConfig, given, __doc__ or "")
    section = render(growth, f"python -m bench.growth {shlex.join(given)}".rstrip())
    print(section, end="")
    if growth.append:
        append_to(growth.append, section)
