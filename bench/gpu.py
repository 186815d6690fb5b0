"""What one GPU does with us, in one call: the update, the losses and the kernels, side by side with the alternatives.

    python -m bench.gpu --output bench-gpu
    python -m bench.gpu --size tiny --output /tmp/try        # on any machine: does it run?

Writes `report.md` and `results.json` to the folder after every part, so that nothing is lost. A part that fails, or that
the time budget does not reach, is reported as such and the others still run. Needs torch, transformers and Triton
alone: neither DeepSpeed nor tyro nor a network. This process imports no torch.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.step_report import Result, parts_table, speed_table, table
from bench.workload import VARIANTS, Measurement, Workload

ROOT = Path(__file__).resolve().parent.parent
STEP_VARIANTS = ("ours", "ours_torch", "hf_fp32", "hf_autocast", "hf_compiled")
BATCHES = {"base": ((256, 128), (64, 512)), "small": ((8, 128), (4, 512)), "tiny": ((2, 16),)}
"""(sequences, length) by size of the pair; 32,768 tokens a batch fill an H200 and leave eager logits their room: three
tensors of 4 GB in fp32, and as much again in backward."""
UPDATES = {"base": 20, "small": 3, "tiny": 1}
LIMIT = 180
"""Seconds after which a part is given up."""


class Part(NamedTuple):
    """One subprocess of the report."""

    name: str
    command: list[str]
    read: Callable[[str], Any]
    """Its standard output -> what goes into results.json."""


def parts(size: str) -> Iterator[Part]:
    """In the order of their worth, in case time runs out."""
    for sequences, length in BATCHES[size]:
        for variant in STEP_VARIANTS:
            work = Workload(variant=variant, size=size, length=length, sequences=sequences, updates=UPDATES[size])
            arguments = json.dumps(dataclasses.asdict(work))
            yield Part(f"update: {variant}, {sequences} x {length}", worker("bench.step_worker", arguments), last_json)
    for sequences, length in BATCHES[size]:
        arguments = json.dumps({"size": size, "sequences": sequences, "length": length, "repeats": UPDATES[size]})
        yield Part(f"loss: {sequences} x {length}", worker("bench.loss_worker", arguments), last_json)
    yield Part("kernels", worker("bench.kernels"), str)


def worker(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def last_json(output: str) -> Any:
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


def run_part(part: Part, seconds: float) -> dict[str, Any]:
    """{"result": ...} or {"failure": why}; never raises for what the part does."""
    started = time.perf_counter()
    try:
        process = subprocess.run(part.command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failure": f"given up after {seconds:.0f} s"}
    if process.returncode != 0:
        return {"failure": f"exit code {process.returncode}: {process.stderr.strip()[-2000:]}"}
    try:
        result = part.read(process.stdout)
    except (IndexError, json.JSONDecodeError):
        return {"failure": f"no result in its output: {process.stdout[-500:]!r}"}
    return {"result": result, "seconds": round(time.perf_counter() - started, 1)}


def render(outcomes: dict[str, dict[str, Any]], size: str, command: str) -> str:
    """The report of the parts so far."""
    lines = [f"## {time.strftime('%Y-%m-%d %H:%M')}: one device, {size} pair", "", f"    {command}", ""]
    measured = [found for name, found in update_results(outcomes, size).items() if name]
    if measured:
        first = measured[0].runs[0]
        peak = max(run.gemm_peak for result in measured for run in result.runs)
        lines += [f"{first.device}; bf16 GEMM peak {peak / 1e12:,.1f} TFLOP/s.", ""]
        lines += [*speed_table(measured, peak), "", *parts_table(measured), ""]
        lines += [f"- {VARIANTS[r.workload.variant]}: {r.runs[0].setup}" for r in measured[: len(STEP_VARIANTS)]] + [""]
    losses = {name: o["result"] for name, o in outcomes.items() if name.startswith("loss") and "result" in o}
    rows = [
        (name[6:], row["loss"], f"{row['ms']:.2f}", f"{row['peak_gb']:.2f}")
        for name in losses
        for row in losses[name]["rows"]
    ]
    if rows:
        lines += [*table(("batch", "loss with its gradients", "ms", "peak GB"), rows), ""]
    if "result" in outcomes.get("kernels", {}):
        lines += [outcomes["kernels"]["result"].strip(), ""]
    lines += [f"- {name}: FAILED: {o['failure']}" for name, o in outcomes.items() if "failure" in o]
    return "\n".join(lines) + "\n"


def update_results(outcomes: dict[str, dict[str, Any]], size: str) -> dict[str, Result]:
    found = {}
    for part in parts(size):
        if part.name.startswith("update") and "result" in outcomes.get(part.name, {}):
            work = Workload(**json.loads(part.command[-1]))
            found[part.name] = Result(work, [Measurement(**outcomes[part.name]["result"])])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for report.md and results.json")
    parser.add_argument("--size", choices=tuple(BATCHES), default="base", help="the pair of bench.step")
    parser.add_argument("--seconds", type=float, default=570, help="time budget of all parts together")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    command = f"python -m bench.gpu --size {arguments.size} --seconds {arguments.seconds:.0f}"
    ends = time.monotonic() + arguments.seconds
    outcomes: dict[str, dict[str, Any]] = {}
    for part in parts(arguments.size):
        left = ends - time.monotonic()
        outcomes[part.name] = run_part(part, min(LIMIT, left)) if left > 1 else {"failure": "no time left for it"}
        summary = outcomes[part.name].get("failure", "done")
        print(f"{part.name}: {summary.splitlines()[-1]}", file=sys.stderr, flush=True)
        (arguments.output / "results.json").write_text(json.dumps(outcomes, indent=1))
        (arguments.output / "report.md").write_text(render(outcomes, arguments.size, command))
    print((arguments.output / "report.md").read_text())
    return 0 if any("result" in outcome for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
