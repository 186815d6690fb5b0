"""One case of `bench.kernels`: on CUDA called, on a CPU a process of its own, which prints one line of JSON."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench import kernels_small, kernels_vocab
from bench.kernels_cases import Case, Figures
from training.metrics import Stopwatch, peak_memory_bytes

CACHE_BYTES = 256 << 20
"""Written between repetitions, so that none finds its inputs in a cache: more than any level-2 or level-3 cache here."""


def measure(case: Case) -> Figures:
    """Memory from the first run, time from the later ones."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, leaves = _prepare(case, device)
    if case.implementation == "compile":
        run()  # the compiler is not measured
    start = _forget_peak(device)
    run()
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    peak = max(0, peak_memory_bytes(device) - start - gradients)
    figures = Figures(seconds=_shortest(run, case.shape.repetitions, device), peak_bytes=peak)
    if case.operation != "vocab_loss":
        return figures
    loss = kernels_vocab.loss_of(case.implementation, case.chunk_tokens)
    first, second = kernels_vocab.gradient_errors(case, loss, device)
    return dataclasses.replace(figures, features_error=first, weight_error=second)


def _prepare(case: Case, device: torch.device) -> tuple[Callable[[], object], Sequence[Tensor]]:
    """Forward and backward of a case, and its leaves."""
    if case.operation == "logits":
        return kernels_vocab.logits_function(case, device), []
    if case.operation == "vocab_loss":
        inputs, loss = (
            kernels_vocab.make_inputs(case, device),
            kernels_vocab.loss_of(case.implementation, case.chunk_tokens),
        )
        leaves: Sequence[Tensor] = inputs[:3]

        def run_loss() -> None:
            gradients = torch.autograd.grad(loss(inputs), leaves)
            del gradients

        return run_loss, leaves
    tensors = kernels_small.make_inputs(case, device)
    function = kernels_small.function_of(case, device)
    leaves = [t for t in tensors if t.requires_grad]
    with torch.no_grad():
        grad_out = torch.randn_like(function(tensors))

    def run() -> None:
        gradients = torch.autograd.grad(function(tensors), leaves, grad_out)
        del gradients

    return run, leaves


def _shortest(run: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Seconds; of the device on CUDA."""
    spoiler = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device)
    watch, shortest = Stopwatch(device), float("inf")
    run()
    for _ in range(repetitions):
        spoiler.zero_()
        with watch():
            run()
        shortest = min(shortest, watch.take())
    return shortest


def _forget_peak(device: torch.device) -> int:
    """Bytes in use now; later peaks count from here."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the peak starts anew
    return peak_memory_bytes(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a plain copy that no cache holds."""
    source = torch.zeros(CACHE_BYTES * (4 if device.type == "cuda" else 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _shortest(lambda: target.copy_(source), 5, device)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure(Case(**json.loads(sys.argv[1]))))))
