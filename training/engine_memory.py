"""What DeepSpeed's engine holds for the student on one rank, as its ZeRO stage and the number of ranks partition it.

Read in runtime/bf16_optimizer.py and runtime/zero/stage_1_and_2.py of DeepSpeed 0.19.8.
"""

from pathlib import Path

from training.ds_config import DeepSpeedConfig

WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of an element by its type in the JSON."""


def engine_bytes(ds: DeepSpeedConfig, *, elements: int, num_ranks: int, device: str) -> dict[str, int]:
    """Item -> bytes that stay for the whole run; `elements` of all weights together."""
    width = WIDTHS[ds.precision]
    share = -(-elements // num_ranks)
    partitioned = f" / {num_ranks} ranks" if num_ranks > 1 else ""
    items = {
        f"student weights, {ds.precision}": width * elements,
        f"fp32 master weights{partitioned}": 4 * share,
        f"optimizer state (two fp32 moments){partitioned}": 8 * share,
    }
    accumulate = WIDTHS[ds.raw.get("data_types", {}).get("grad_accum_dtype") or ds.precision]
    if ds.zero_stage == 1:
        items["gradients (ZeRO-1: whole on every rank)"] = accumulate * elements
    else:
        items[f"gradients{partitioned}"] = accumulate * share
    if is_bf16_optimizer(ds):
        return items
    zero = ds.raw["zero_optimization"]
    bucket = int(zero.get("reduce_bucket_size", 500_000_000))
    if device == "cpu":
        bucket = min(bucket, elements)  # memory that is never touched is none
    communicated = WIDTHS[ds.raw.get("communication_data_type") or ds.precision]
    if zero.get("contiguous_gradients", True):
        items["DeepSpeed buckets"] = bucket * communicated * (2 if zero.get("overlap_comm") else 1)
    return items


def is_bf16_optimizer(ds: DeepSpeedConfig) -> bool:
    """Whether DeepSpeed takes its class for ZeRO-1 in bf16, which has no buckets."""
    accumulate = ds.raw.get("data_types", {}).get("grad_accum_dtype")
    return ds.precision == "bf16" and ds.zero_stage == 1 and accumulate == "fp32"


def step_bytes(ds: DeepSpeedConfig, *, elements: int, num_ranks: int) -> int:
    """What the update itself adds for a moment: gradients made flat, weights on their way to the others."""
    share = -(-elements // num_ranks)
    if is_bf16_optimizer(ds):
        return 4 * elements if num_ranks > 1 else 0
    return 4 * share + (WIDTHS[ds.precision] * elements if num_ranks > 1 else 0)


def resident_bytes() -> int:
    """Of this process, now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def checkpoint_bytes(elements: int) -> int:
    """fp32 master weights and two moments, of all ranks together."""
    return 12 * elements
