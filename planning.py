"""What a run needs before it is queued, and after it, how well that was predicted: `train.py --plan N`.

Memory by counting (model/memory.py, training/engine_memory.py), time by trying a few micro-batches, FLOPs by arithmetic.
Shapes are those of the text: the micro-batches of the first updates.
"""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from data.batching import Batch, BatchLoader, UpdateWindows, Window, assign
from data.config import DataConfig
from inputs import Inputs
from model.bert import MaskedLanguageModel
from model.config import ObjectiveConfig
from model.memory import PADDED, activation_bytes, backward_bytes, loss_bytes, teacher_output_bytes
from model.objective import Losses, TripleLoss
from model.teacher import DTYPES
from training.config import RunConfig
from training.ds_config import DeepSpeedConfig
from training.engine_memory import WIDTHS, checkpoint_bytes, engine_bytes, step_bytes
from training.metrics import Stopwatch
from training.prefetch import on_device

SAMPLED_UPDATES = 4
"""Whose micro-batches stand for all."""
PROBED, PROBE_SECONDS = 5, 30.0
"""Micro-batches timed after one of warm-up, and seconds after which no other is begun."""
OPTIMIZER_SAMPLE = 4_000_000
"""Weights whose update is timed."""
LIBRARIES = 210_000_000
"""Bytes that a CPU process takes when it starts to work, whatever the model: libraries that are loaded late, stacks of
threads, compiled products of oneDNN, communication buffers. Measured in a run of a tiny model."""
HEAP_KEPT = 0.45
"""Of what lives on a CPU: freed memory that the heap keeps and cannot use for the next tensor (`keep_freed_memory`).
Measured in five runs of 4 to 22 M weights: 0.30 to 0.78."""


def update_flops(window: Window, inputs: Inputs, objective: ObjectiveConfig) -> float:
    """Forward and backward of the student (3x forward), forward of the teacher; real tokens, all ranks."""
    pairs = int((window.lengths**2).sum())
    student = inputs.student.config
    predicted = window.masked if objective.predicts_masked_only else window.attended
    flops = 3 * (student.encoder_flops(window.attended, pairs) + student.head_flops(predicted))
    if inputs.teacher is not None:
        teacher = inputs.teacher.config
        flops += teacher.encoder_flops(window.attended, pairs) + teacher.head_flops(predicted)
    return flops


@dataclass(frozen=True)
class Workload:
    """What the prediction depends on."""

    inputs: Inputs
    ds: DeepSpeedConfig
    objective: ObjectiveConfig
    data: DataConfig
    run: RunConfig
    num_ranks: int
    device: torch.device

    @cached_property
    def windows(self) -> UpdateWindows:
        return UpdateWindows(
            self.inputs.blend,
            sequences_per_update=self.ds.sequences_per_update,
            seed=self.run.seed,
            mask_probability=self.data.mask_probability,
        )

    @property
    def num_updates(self) -> int:
        return self.run.max_updates or self.windows.num_updates(self.run.epochs)

    def sampled_windows(self) -> list[Window]:
        return [self.windows.window(update) for update in range(SAMPLED_UPDATES)]

    @property
    def elements(self) -> list[int]:
        return [parameter.numel() for parameter in self.inputs.student.parameters()]

    def memory(self) -> dict[str, int]:
        """Item -> bytes of one rank at its peak; they add up. On CUDA what torch allocates, on CPUs the resident process."""
        items = self.tensors()
        if self.device.type == "cpu":
            items["freed memory that the heap keeps"] = int(HEAP_KEPT * sum(items.values()))
            items["copy for the checkpoint being written"] = -(-checkpoint_bytes(sum(self.elements)) // self.num_ranks)
            items["process and libraries"] = self.inputs.resident_before + LIBRARIES
        return items

    def tensors(self) -> dict[str, int]:
        """Item -> bytes that live at the same time, when it is most."""
        inputs, sizes = self.inputs, self.elements
        student, kernels = inputs.student.config, inputs.student.kernels
        rest = {"elements": sum(sizes), "num_ranks": self.num_ranks}
        items = engine_bytes(self.ds, device=self.device.type, **rest)
        tokens, sequences, longest, masked = self._largest_micro_batch()
        width = WIDTHS[self.ds.precision]
        rows = sequences * longest if kernels.attention in PADDED else tokens
        saved = activation_bytes(student, kernels, rows=rows, longest=longest, width=width)
        if inputs.teacher is not None:
            weights = [*inputs.teacher.model.parameters(), *inputs.teacher.model.buffers()]
            items["teacher"] = sum(p.numel() * p.element_size() for p in weights)
            saved += teacher_output_bytes(inputs.teacher.config, tokens=tokens, width=weights[-1].element_size())
        work = loss_bytes(
            student,
            kernels.vocab_loss,
            tokens=tokens,
            predicted=masked if self.objective.predicts_masked_only else tokens,
            width=width,
            device=self.device.type,
            has_teacher=inputs.teacher is not None,
        )
        fresh = width * max(sizes)  # the largest gradient, until it is reduced or added up
        moments = {
            "loss": {"activations": saved, "vocabulary and cosine loss": work},
            "backward": {
                "activations": saved + backward_bytes(student, rows=rows, width=width),
                "fresh gradients": fresh,
            },
            "update": {"the update itself": step_bytes(self.ds, **rest)},
        }
        return items | max(moments.values(), key=lambda moment: sum(moment.values()))

    def loading(self) -> int:
        """Bytes of a CPU process while it reads the models: the teacher's file and its fp32 copy, then the student."""
        teacher = self.inputs.teacher
        read = 4 * sum(p.numel() for p in teacher.model.parameters()) if teacher else 0
        return self.inputs.resident_before + LIBRARIES + read + max(read, 4 * sum(self.elements))

    def peak(self) -> int:
        """Bytes of one rank."""
        training = sum(self.memory().values())
        return max(training, self.loading()) if self.device.type == "cpu" else training

    def _largest_micro_batch(self) -> tuple[int, int, int, int]:
        """Tokens, sequences, longest sequence and masked tokens of the fullest one."""
        bins = self.num_ranks * self.ds.micro_batches_per_update
        largest = longest = masked = 0
        for window in self.sampled_windows():
            fullest = window.lengths[assign(window.lengths, bins)[0]]
            largest = max(largest, int(fullest.sum()))
            longest = max(longest, int(window.lengths.max()))
            masked = max(masked, round(window.masked * int(fullest.sum()) / window.attended))
        return largest, self.ds.sequences_per_micro_batch, longest, masked


@dataclass(frozen=True)
class Probe:
    """What was timed on this rank."""

    micro_batches: int
    tokens: int
    seconds: float
    optimizer_seconds: float
    """Of one update."""

    def update_seconds(self, tokens_of_a_rank: float) -> float:
        return self.seconds / self.tokens * tokens_of_a_rank + self.optimizer_seconds


def probe(work: Workload, rank: int) -> Probe:
    """Forward and backward of this rank's first micro-batches, as they would be trained. The student is of no use
    afterwards: it has moved, and has gradients."""
    student = work.inputs.student.to(device=work.device, dtype=DTYPES[work.ds.precision]).train()
    objective = TripleLoss(work.objective, work.inputs.student.kernels.vocab_loss)
    watch, begun = Stopwatch(work.device), time.monotonic()
    timed: list[tuple[int, float]] = []
    for window, batch in itertools.islice(_micro_batches(work, rank), PROBED + 1):
        with watch():
            _losses(objective, work.inputs, student, batch, window).total.backward()
        timed.append((batch.num_tokens, watch.take()))
        if time.monotonic() - begun > PROBE_SECONDS:
            break
    counted = timed[1:] or timed  # the first allocates and compiles
    tokens, seconds = (sum(column) for column in zip(*counted, strict=True))
    return Probe(len(counted), int(tokens), seconds, _optimizer_seconds(work))


def _micro_batches(work: Workload, rank: int) -> Iterator[tuple[Window, Batch]]:
    with BatchLoader(
        work.windows,
        rank=rank,
        num_ranks=work.num_ranks,
        sequences_per_micro_batch=work.ds.sequences_per_micro_batch,
        first_update=0,
        last_update=PROBED + 1,
        mask_smoothing=work.data.mask_smoothing,
        pin_memory=work.device.type == "cuda",
    ) as loader:
        for window, batches in loader:
            for batch in on_device(batches, work.device):
                yield window, batch


def _losses(
    objective: TripleLoss, inputs: Inputs, student: MaskedLanguageModel, batch: Batch, window: Window
) -> Losses:
    predict_at = objective.predict_at(batch.masked_positions)
    layout = (batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen, predict_at)
    if inputs.teacher is None:
        return objective.masked_lm(student(*layout), batch.masked_labels, masked=window.masked)
    target = inputs.teacher(*layout)
    labels = (batch.masked_positions, batch.masked_labels)
    return objective(student(*layout), target, *labels, attended=window.attended, masked=window.masked)


def _optimizer_seconds(work: Workload) -> float:
    """Of one update on one rank: AdamW on a sample of its partition, in proportion."""
    share = -(-sum(work.elements) // work.num_ranks)
    weights = torch.zeros(min(share, OPTIMIZER_SAMPLE), device=work.device, requires_grad=True)
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)
    watch = Stopwatch(work.device)
    for _ in range(2):  # the first allocates the moments
        with watch():
            optimizer.step()
        seconds = watch.take()
    return seconds * share / weights.numel()


def against_actual(work: Workload, folder: Path) -> str:
    """One line at the end of a run: memory and time as predicted and as they were.

    Time is predicted from the first line of metrics after the start, for the tokens that were left then.
    """
    try:
        return _against_actual(work, folder)
    except (OSError, ValueError, KeyError) as error:  # of the report alone: the run is finished
        return f"plan and run cannot be compared: {type(error).__name__}: {error}"


def _against_actual(work: Workload, folder: Path) -> str:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "tokens_per_second" in line]
    if not lines:
        return "plan and run: no line of metrics to compare with"
    predicted, actual = work.peak(), max(line["peak_memory_bytes"] for line in lines)
    text = f"plan and run: memory of a rank {predicted / 1e9:.2f} GB predicted, {actual / 1e9:.2f} GB measured"
    text += f" ({predicted / actual - 1:+.0%})"
    if len(lines) < 2:
        return text
    first = lines[0]
    expected = (lines[-1]["tokens"] - first["tokens"]) / first["tokens_per_second"]
    taken = sum(
        (line["tokens"] - before["tokens"]) / line["tokens_per_second"] for before, line in itertools.pairwise(lines)
    )
    text += f"; training after update {first['update']} {clock(expected)} predicted there, {clock(taken)} measured"
    return text + f" ({expected / taken - 1:+.0%})"


def clock(seconds: float) -> str:
    """12.3 s, or 1:02:03 from a minute on."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
