"""Run folders as train.py writes them, without training: for tests of what is made of them."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEACHER_ACCURACY = 0.193
REAL_CURVE = {80: 0.146, 160: 0.155, 240: 0.163, 320: 0.167, 400: 0.174, 480: 0.177, 560: 0.179}
"""Held-out accuracy of bench/RESULTS.md, "Half an hour of distillation on real text"."""
_FLAGS: dict[str, Any] = {
    "ds_config": "ds_configs/zero2_cpu.json",
    "epochs": 3.0,
    "max_updates": 560,
    "warmup_share": 0.05,
    "eval_sequences": 512,
    "hang_timeout": 1800.0,
    "data": ["corpus/wiki"],
    "eval_data": "corpus/heldout",
    "max_length": 128,
    "mask_probability": 0.15,
    "mask_smoothing": 0.7,
    "teacher": "teachers/six-layers",
    "student_init": "teacher",
    "objective": "distil",
    "temperature": 2.0,
    "weight_distillation": 5.0,
    "weight_mlm": 2.0,
    "weight_cosine": 1.0,
}
TOKENS_PER_UPDATE, SEQUENCES_PER_UPDATE = 8_000, 64


def training_line(update: int, **more: Any) -> dict[str, Any]:
    losses = {"distillation": 0.8 * math.exp(-update / 400), "mlm": 6 + 3 * math.exp(-update / 80), "cosine": 0.2}
    return {
        "update": update,
        "epoch": update * SEQUENCES_PER_UPDATE / 20_000,
        "sequences": update * SEQUENCES_PER_UPDATE,
        "tokens": update * TOKENS_PER_UPDATE,
        "learning_rate": 1e-3,
        "loss": 5 * losses["distillation"] + 2 * losses["mlm"] + losses["cosine"],
        **{f"loss_{name}": value for name, value in losses.items()},
        **{f"loss_{n}_weighted": w * losses[n] for n, w in (("distillation", 5), ("mlm", 2), ("cosine", 1))},
        "skipped_updates": 0,
        "tokens_per_second": 2_000.0,
        "peak_memory_bytes": 1_900_000_000,
        **more,
    }


def evaluation_line(update: int, accuracy: float | None, **more: Any) -> dict[str, Any]:
    return {
        "update": update,
        "eval_mlm_loss": 6.0 + 3.0 / (1 + update / 40),
        "eval_mlm_accuracy": accuracy,
        "eval_perplexity": 420.0,
        "eval_distillation": 0.4,
        "eval_agreement": 0.3,
        "eval_cosine": 0.15,
    } | more


def write_run(
    folder: Path,
    curve: dict[int, float] | None = None,
    *,
    until: int | None = None,
    log_every: int = 20,
    end: str = "",
    attempts: Sequence[dict[str, Any]] | None = None,
    has_teacher: bool = True,
    **flags: Any,
) -> Path:
    """A run with this held-out accuracy, which has come to the update `until`; `end` as in attempts.jsonl."""
    curve = REAL_CURVE if curve is None else curve
    last = max(curve, default=0) if until is None else until
    folder.mkdir(parents=True)
    config = {
        "flags": {**_FLAGS, "output": str(folder), **flags},
        "ds_config": {"train_batch_size": SEQUENCES_PER_UPDATE, "zero_optimization": {"stage": 2}},
        "num_ranks": 2,
        "versions": {"torch": "2.13.0", "deepspeed": "0.19.8"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    lines: list[dict[str, Any]] = []
    if has_teacher:
        lines.append({"update": 0, "eval_teacher_mlm_loss": 6.028, "eval_teacher_mlm_accuracy": TEACHER_ACCURACY})
    if not config["flags"]["eval_data"]:
        curve = {}
    else:
        lines.append(evaluation_line(0, 0.107))
    for update in range(1, last + 1):
        if update % log_every == 0 or update == last:
            lines.append(training_line(update))
        if update in curve:
            lines.append(evaluation_line(update, curve[update]))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [{"attempt": 1, "start_update": 0, "num_ranks": 2, "time": time.time() - 600, "host": "n0"}]
    if end:
        code = 0 if end == "FINISHED" else 75
        records.append({"attempt": 1, "end": end, "exit_code": code, "update": last, "time": time.time(), "host": "n0"})
    written = records if attempts is None else attempts
    (folder / "attempts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in written))
    (folder / "log.txt").write_text(
        "teacher: six layers\nstudent: three layers\nrun folder: runs/a\nupdate 20/560  loss 1\n"
    )
    return folder
