"""Our modules under DeepSpeed's engine, started as train.py starts it, with a JSON of ds_configs/ as it is shipped."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.step_ours import OurSide
from bench.workload import STAGES, Workload
from data.batch import Batch
from model.bert import Prediction
from model.teacher import DTYPES
from training.ds_config import DeepSpeedConfig, read_ds_config
from training.engine import backward, start_engine

ROOT = Path(__file__).resolve().parent.parent


class EngineSide(OurSide):
    """One rank; the process group must be running."""

    def __init__(self, workload: Workload, batch: Batch, device: torch.device, **changes: Any) -> None:
        self.ds = engine_config(workload, device, **changes)
        super().__init__(workload, batch, device, DTYPES[self.ds.precision])
        self.setup += f"; DeepSpeed, ZeRO-{self.ds.zero_stage}"

    def start(self) -> None:
        self.engine = start_engine(self.student, self.ds, num_updates=1_000_000, warmup_share=0.0)

    def study(self) -> Prediction:
        return self.engine(*self.layout())

    def backward(self, loss: Tensor) -> None:
        backward(self.engine, loss)

    def step(self, is_last: bool) -> None:
        self.engine.step()  # counts the micro-batches itself


def engine_config(workload: Workload, device: torch.device, **changes: Any) -> DeepSpeedConfig:
    """The shipped JSON of the variant's stage with the workload's batch sizes; `changes` replace keys, and merge blocks."""
    raw = json.loads((ROOT / f"ds_configs/zero{STAGES[workload.variant]}.json").read_text())
    raw["train_micro_batch_size_per_gpu"] = workload.sequences
    raw["train_batch_size"] = workload.sequences * workload.micro_batches * workload.ranks
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(raw, file)
        file.flush()
        return read_ds_config(file.name, num_ranks=workload.ranks, device_type=device.type)
