"""One whole distillation update, ours beside what Hugging Face's modules and an eager triple loss need for the same.

    python -m bench.step
    python -m bench.step --size small --lengths 128 --rounds 1
    python -m bench.step --variants ours zero1 zero2 --micro_batches 8 --ranks 2
    python -m bench.step --append bench/RESULTS.md

Every variant runs in processes of its own, one at a time and taking turns over the rounds, so that memory is the variant's
and a slow minute of the machine is shared by all. This process imports no torch: on Linux a child's highest resident set
starts at its parent's.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.step_report import Result, render
from bench.workload import DEFAULT_VARIANTS, MULTI_RANK_VARIANTS, SIZES, VARIANTS, Measurement, Workload
from command_line import parse

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What to measure."""

    size: Literal["base", "small", "tiny"] = "base"
    """Teacher: base (12 layers, 768 wide), small (4, 512) or tiny (2, 128). The student has half its layers."""
    lengths: tuple[int, ...] = (128, 512)
    """Tokens per sequence; each length is a batch of its own."""
    variants: tuple[str, ...] = DEFAULT_VARIANTS
    """What to compare: ours, ours_torch (plain torch kernels), zero1 and zero2 (ours under DeepSpeed), hf_fp32,
    hf_autocast, hf_compiled. Ratios are against ours and hf_fp32."""
    sequences: int = 8
    """Sequences per micro-batch."""
    micro_batches: int = 1
    """Micro-batches whose gradients add up to an update, on each rank."""
    ranks: int = 1
    """Processes that share an update: ours (one all-reduce), zero1 and zero2 only."""
    rounds: int = 3
    """Times that every variant gets its turn, in a new process each."""
    updates: int = 3
    """Timed updates in each process, after two for warm-up. On a GPU 20 or more are needed for a steady figure."""
    append: str = ""
    """Markdown file to add the table to, for example bench/RESULTS.md."""

    def __post_init__(self) -> None:
        longest = SIZES[self.size].max_positions
        if not self.lengths or not all(1 <= length <= longest for length in self.lengths):
            raise ValueError(f"--lengths {' '.join(map(str, self.lengths))}: at least one, each from 1 to {longest}")
        wrong = [name for name in self.variants if name not in VARIANTS]
        if wrong or not self.variants:
            raise ValueError(f"--variants {' '.join(self.variants)}: choose from {', '.join(VARIANTS)}")
        alone = [name for name in self.variants if name not in MULTI_RANK_VARIANTS]
        if self.ranks > 1 and alone:
            raise ValueError(
                f"--ranks {self.ranks} --variants {' '.join(self.variants)}: {', '.join(alone)} cannot share an update "
                f"between processes, only {', '.join(MULTI_RANK_VARIANTS)} can"
            )
        for name in ("sequences", "micro_batches", "ranks", "rounds", "updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if self.append and not Path(self.append).parent.is_dir():
            raise ValueError(f"--append {self.append}: there is no folder {Path(self.append).parent}")


def measure_all(config: StepConfig) -> list[Result]:
    """Every variant on every batch, interleaved."""
    results = []
    for length in config.lengths:
        workloads = [
            Workload(
                variant=variant,
                size=config.size,
                length=length,
                sequences=config.sequences,
                updates=config.updates,
                micro_batches=config.micro_batches,
                ranks=config.ranks,
            )
            for variant in config.variants
        ]
        runs: list[list[Measurement]] = [[] for _ in workloads]
        for number in range(1, config.rounds + 1):
            for workload, own in zip(workloads, runs, strict=True):
                own.append(run_process(workload))
                speed = workload.num_tokens / min(own[-1].seconds)
                print(
                    f"round {number} of {config.rounds}, {config.sequences} x {length}, {VARIANTS[workload.variant]}: "
                    f"{speed:,.0f} tokens/s, {own[-1].peak_bytes / 1e9:.2f} GB, loss {own[-1].loss:.3f}",
                    file=sys.stderr,
                )
        results += [Result(workload, own) for workload, own in zip(workloads, runs, strict=True)]
    check_threads(results)
    return results


def run_process(workload: Workload) -> Measurement:
    """One worker, or its ranks, from start to end; what it writes to stderr is shown as it comes.

    Raises:
        RuntimeError: the worker failed.
    """
    launcher = [sys.executable]
    if workload.ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(workload.ranks)]
    command = [*launcher, "-m", "bench.step_worker", json.dumps(dataclasses.asdict(workload))]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if process.returncode != 0:
        ending = f"exit code {process.returncode}"
        if process.returncode < 0:
            ending = (
                f"signal {-process.returncode} (9: out of memory; try --sequences {max(1, workload.sequences // 2)})"
            )
        print(process.stdout, end="", file=sys.stderr)
        raise RuntimeError(
            f"{VARIANTS[workload.variant]} on {workload.sequences} x {workload.length} ended with {ending}; what it said "
            "is above"
        )
    (found,) = (line for line in process.stdout.splitlines() if line.startswith("{"))  # DeepSpeed prints too
    return Measurement(**json.loads(found))


def check_threads(results: list[Result]) -> None:
    """A library that changes the number of threads would make the comparison worthless."""
    counts = {VARIANTS[r.workload.variant]: run.num_threads for r in results for run in r.runs}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"the variants ran with different numbers of threads: {counts}. Set OMP_NUM_THREADS")


def main(config: StepConfig, command: str) -> None:
    section = render(measure_all(config), command)
    print(section, end="")
    if config.append:
        append_to(config.append, section)


def append_to(name: str, section: str) -> None:
    path = Path(name)
    gap = "\n" if path.exists() and path.stat().st_size else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(gap + section)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    try:
        main(parse(StepConfig, arguments, __doc__ or ""), f"python -m bench.step {shlex.join(arguments)}".rstrip())
    except RuntimeError as error:
        sys.exit(f"error: {error}")
