"""What saving a DistilBERT-size student costs training, and how long resuming takes, beside DeepSpeed's own save and load.

    torchrun --nproc_per_node 2 -m bench.checkpoint --folder /scratch [--updates 6]

Every update trains on one micro-batch of 8 x 128 random tokens a rank (bf16, ZeRO-2). Training waits while begin() copies
and finish() commits; besides, updates beside the writing take longer than the median update without.
"""

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bench.step_engine import engine_config
from bench.workload import VOCAB_SIZE, Workload
from model.config import EncoderConfig
from model.kernels.choice import choose_kernels
from model.student import make_random
from training.checkpoint import Checkpoints
from training.distributed import Ranks, ask_largest, from_first, start_ranks
from training.engine import backward, start_engine
from training.lifecycle import leave_now
from training.metrics import peak_memory_bytes
from training.resume_point import find_checkpoint
from training.state import engine_scalars, engine_tensors, read_engine, restore_engine
from training.tensor_file import SavedParts

SEQUENCES, LENGTH = 8, 128


class Bench:
    """One rank's engine and its updates."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        workload = Workload(
            variant="zero2", size="base", length=LENGTH, sequences=SEQUENCES, updates=1, ranks=ranks.num_ranks
        )
        ds = engine_config(workload, ranks.device)
        shape = EncoderConfig(vocab_size=VOCAB_SIZE, num_layers=6)
        kernels, _ = choose_kernels("auto", "auto", shape, ranks.device, torch.bfloat16, False)
        self.engine = start_engine(make_random(shape, seed=0, kernels=kernels), ds, 1_000_000, 0.0)
        generator = torch.Generator().manual_seed(ranks.rank)
        total = SEQUENCES * LENGTH
        layout = (
            torch.randint(1000, 30_000, (total,), generator=generator),
            torch.arange(LENGTH).repeat(SEQUENCES),
            torch.arange(0, total + 1, LENGTH, dtype=torch.int32),
        )
        self.layout = tuple(tensor.to(ranks.device) for tensor in layout)

    def update(self) -> float:
        """Seconds of one update, agreed on by the ranks."""
        started = time.perf_counter()
        prediction = self.engine(*self.layout, LENGTH)
        backward(self.engine, prediction.hidden.float().square().mean() + prediction.features.float().square().mean())
        self.engine.step()
        ask_largest(self.ranks, [0])()
        return time.perf_counter() - started


def measure_ours(bench: Bench, folder: Path, updates: int) -> dict[str, float]:
    """The second save, whose memory is there; the first one's stall is `first_stall`."""
    checkpoints = Checkpoints(
        folder,
        bench.ranks,
        keep=2,
        max_failures=1,
        say=lambda line: None,
        before=lambda: None,
        after=lambda update: None,
    )
    figures = {}
    for number, name in enumerate(("first_stall", "stall"), start=1):
        usual = statistics.median(bench.update() for _ in range(updates))
        state = {"update": number, "engine": engine_scalars(bench.engine)}
        started = time.perf_counter()
        checkpoints.begin(state, engine_tensors(bench.engine))
        figures[name] = time.perf_counter() - started
        beside, writing = [], True
        while writing:
            beside.append(bench.update())
            writing = bool(ask_largest(bench.ranks, [checkpoints.is_writing])()[0])
        committing = time.perf_counter()
        checkpoints.finish()
        figures["commit"] = time.perf_counter() - committing
        figures["written_after"] = time.perf_counter() - started
        figures["slowdown"] = sum(beside) - usual * len(beside)
        figures["update"] = usual
    started = time.perf_counter()
    found = find_checkpoint(folder, bench.ranks, print)
    assert found is not None
    figures["verify"] = time.perf_counter() - started
    parts = read_engine(bench.engine, SavedParts(found.folder, found.manifest.num_ranks))
    restore_engine(bench.engine, parts, found.state["engine"])
    figures["load"] = time.perf_counter() - started - figures["verify"]
    return figures


def measure_deepspeed(bench: Bench, folder: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    for _ in range(2):
        started = time.perf_counter()
        bench.engine.save_checkpoint(str(folder), tag="peer", save_latest=False)
        figures["stall"] = time.perf_counter() - started
    started = time.perf_counter()
    bench.engine.load_checkpoint(str(folder), tag="peer")
    figures["load"] = time.perf_counter() - started
    return figures


def size_of(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--local_rank", type=int)
    options = parser.parse_args()
    ranks = start_ranks()
    folder = Path(from_first(ranks, str(options.folder / f"bench-{time.time_ns()}")))
    bench = Bench(ranks)
    bench.update()
    before = peak_memory_bytes(ranks.device)
    peer = measure_deepspeed(bench, folder / "peer")
    peer_memory = peak_memory_bytes(ranks.device) - before
    ours = measure_ours(bench, folder / "ours", options.updates)
    if ranks.is_first:
        report(ranks.num_ranks, ours, peer, folder, peer_memory)
    dist.barrier()
    if ranks.is_first:
        shutil.rmtree(folder)
    leave_now(0)


def report(num_ranks: int, ours: dict[str, float], peer: dict[str, Any], folder: Path, peer_memory: int) -> None:
    one = max((folder / "ours").glob("update-*"))
    print(f"{num_ranks} ranks, update {ours['update']:.2f} s")
    print("| | training waits | files written after | verify and load | size |")
    print("|---|---|---|---|---|")
    print(
        f"| ours | {ours['stall'] + ours['commit']:.2f} s (first save {ours['first_stall'] + ours['commit']:.2f}), and "
        f"updates slower by {ours['slowdown']:.2f} s in all | {ours['written_after']:.2f} s | {ours['verify']:.2f} + "
        f"{ours['load']:.2f} s | {size_of(one):.0f} MB |"
    )
    print(
        f"| DeepSpeed | {peer['stall']:.2f} s | (the same) | not verified, {peer['load']:.2f} s | "
        f"{size_of(folder / 'peer'):.0f} MB |"
    )
    print(f"peak memory grew by {peer_memory / 1e6:.0f} MB in DeepSpeed's save", file=sys.stderr)


if __name__ == "__main__":
    main()
