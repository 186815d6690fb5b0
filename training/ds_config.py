"""The DeepSpeed JSON: read, completed with what only the launch knows, and checked before anything heavy starts.

DeepSpeed ignores keys it does not know and fills omitted ones with defaults that changed between versions (an omitted
`gradient_clipping` means 1.0 since 0.19.3), so every key that changes the result must be written, and spelled right.
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_clipping",
    "gradient_allreduce_op",
    "optimizer",
    "zero_optimization",
)

KNOWN = {
    *REQUIRED,
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "data_types",
    "communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "timers",
    "dump_state",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "checkpoint",
    "comms_logger",
    "flops_profiler",
    "compile",
    "aio",
    "seq_parallel_communication_data_type",
    "disable_allgather",
}

BLOCKS = {"bf16", "fp16", "data_types", "optimizer", "zero_optimization", "timers"}

REFUSED = {
    "scheduler": "the code owns the schedule (linear warm-up, linear decay), because the JSON cannot know the number of "
    "updates; use --warmup_share and remove the block",
    "curriculum_learning": "updates are windows of one shuffled stream here",
    "data_efficiency": "updates are windows of one shuffled stream here",
    "tensorboard": "the run folder already has tensorboard/",
    "activation_checkpointing": "it concerns Megatron's layers only",
    "amp": "use bf16 or fp16",
    "torch_autocast": "use bf16 or fp16",
    "managed_gradient_accumulation": "the loop counts on DeepSpeed's own accumulation",
}


@dataclass(frozen=True, kw_only=True)
class DeepSpeedConfig:
    """What the rest of the harness reads of the JSON."""

    path: str
    raw: dict[str, Any]
    """The JSON with `gradient_accumulation_steps` filled in, as DeepSpeed gets it."""
    sequences_per_update: int
    sequences_per_micro_batch: int
    configured_micro_batch: int
    """`train_micro_batch_size_per_gpu` as written; more than fits is replaced by what was found to fit."""
    micro_batches_per_update: int
    """Of one rank."""
    precision: str
    """bf16, fp16 or fp32."""
    zero_stage: int
    weight_decay: float
    warnings: tuple[str, ...]


def read_ds_config(
    path: str, *, num_ranks: int, device_type: str, fitting: tuple[int, int] | None = None
) -> DeepSpeedConfig:
    """Read and check the JSON for this launch. `fitting`: a micro-batch that did not fit into memory, and one that does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: malformed, wrong or risky; the message names the key.
    """
    raw = _read(path)
    _check_keys(raw, path)
    _check_batches(raw, path, num_ranks)
    configured = raw["train_micro_batch_size_per_gpu"]
    if fitting is not None and fitting[0] == configured:
        raw["train_micro_batch_size_per_gpu"] = fitting[1]
    micro_batches = _check_batches(raw, path, num_ranks)
    precision = _check_precision(raw, path, device_type)
    stage = _check_zero(raw, path)
    return DeepSpeedConfig(
        path=path,
        raw=raw | {"gradient_accumulation_steps": micro_batches},
        sequences_per_update=raw["train_batch_size"],
        sequences_per_micro_batch=raw["train_micro_batch_size_per_gpu"],
        configured_micro_batch=configured,
        micro_batches_per_update=micro_batches,
        precision=precision,
        zero_stage=stage,
        weight_decay=_check_optimizer(raw, path),
        warnings=tuple(_risks(raw, precision)),
    )


def _read(path: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        beside = sorted(str(p) for p in (file.parent if file.parent.is_dir() else Path("ds_configs")).glob("*.json"))
        raise FileNotFoundError(f"no DeepSpeed configuration at --ds_config {path} (there are: {', '.join(beside)})")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--ds_config {path} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"--ds_config {path} holds {type(raw).__name__}, expected a JSON object")
    return raw


def _check_keys(raw: dict[str, Any], path: str) -> None:
    for key, reason in REFUSED.items():
        if key in raw:
            raise ValueError(f"{path}: key {key!r} is refused: {reason}")
    for key in raw:
        if key not in KNOWN:
            close = difflib.get_close_matches(key, KNOWN, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "DeepSpeed would ignore it or it changes the update here"
            raise ValueError(f"{path}: key {key!r} is not known: {hint}")
    for key in BLOCKS & raw.keys():
        if not isinstance(raw[key], dict):
            raise ValueError(f"{path}: {key} is {raw[key]!r}, expected an object")
    missing = [key for key in REQUIRED if key not in raw]
    if missing:
        raise ValueError(
            f"{path}: missing {', '.join(map(repr, missing))}. DeepSpeed's silent defaults change results, "
            "so write them out (ds_configs/zero2.json is a complete example)"
        )
    if raw["gradient_allreduce_op"] != "sum":
        raise ValueError(
            f"{path}: gradient_allreduce_op is {raw['gradient_allreduce_op']!r}, must be 'sum': the loss already carries "
            "the denominators of the whole update"
        )
    if raw.get("prescale_gradients") or raw.get("gradient_predivide_factor", 1.0) != 1.0:
        raise ValueError(f"{path}: prescale_gradients and gradient_predivide_factor would scale the update twice")


def _check_batches(raw: dict[str, Any], path: str, num_ranks: int) -> int:
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu"):
        if type(raw[key]) is not int or raw[key] < 1:
            raise ValueError(f"{path}: {key} is {raw[key]!r}, expected a whole number of sequences, at least 1")
    total, micro = raw["train_batch_size"], raw["train_micro_batch_size_per_gpu"]
    if total % (micro * num_ranks):
        fitting = [m for m in range(micro, 0, -1) if total % (m * num_ranks) == 0]
        advice = f"use train_micro_batch_size_per_gpu {fitting[0]}" if fitting else "use another number of ranks"
        step = micro * num_ranks
        raise ValueError(
            f"{path}: train_batch_size {total} is no multiple of train_micro_batch_size_per_gpu {micro} x {num_ranks} "
            f"ranks = {step}: {advice}, or a train_batch_size of {-(-total // step) * step}"
        )
    derived = total // (micro * num_ranks)
    if raw.get("gradient_accumulation_steps", derived) != derived:
        raise ValueError(
            f"{path}: gradient_accumulation_steps {raw['gradient_accumulation_steps']} contradicts {total} / ({micro} x "
            f"{num_ranks} ranks) = {derived}. It is derived from the number of ranks: remove the key"
        )
    return derived


def _check_precision(raw: dict[str, Any], path: str, device_type: str) -> str:
    enabled = [name for name in ("bf16", "fp16") if raw.get(name, {}).get("enabled") is True]
    for name in ("bf16", "fp16"):
        if name in raw and type(raw[name].get("enabled")) is not bool:
            raise ValueError(f"{path}: {name}.enabled must be true or false, it is {raw[name].get('enabled')!r}")
    if len(enabled) > 1:
        raise ValueError(f"{path}: bf16.enabled and fp16.enabled exclude each other")
    if enabled == ["fp16"] and device_type == "cpu":
        raise ValueError(f"{path}: fp16.enabled on a CPU is refused by DeepSpeed: use ds_configs/zero2_cpu.json (bf16)")
    if raw.get("bf16", {}).get("bf16_master_weights_and_grads"):
        raise ValueError(
            f"{path}: bf16.bf16_master_weights_and_grads loses small updates: master weights stay fp32 here"
        )
    if raw.get("bf16", {}).get("check_grad_overflow") is False:
        raise ValueError(f"{path}: bf16.check_grad_overflow false would apply gradients that are not finite: remove it")
    return enabled[0] if enabled else "fp32"


def _check_zero(raw: dict[str, Any], path: str) -> int:
    zero = raw["zero_optimization"]
    stage = zero.get("stage")
    if type(stage) is not int or stage not in (1, 2):
        raise ValueError(
            f"{path}: zero_optimization.stage is {stage!r}, expected 1 or 2 (without ZeRO, DeepSpeed's 16-bit optimizers "
            "keep no fp32 gradients or do not scale this loss; stage 3 cannot sum gradients)"
        )
    if zero.get("compute_grad_norm") is False:
        raise ValueError(f"{path}: zero_optimization.compute_grad_norm false: clipping and the log need the norm")
    for key in ("round_robin_gradients", "parameter_alignment"):
        if zero.get(key):
            raise ValueError(
                f"{path}: zero_optimization.{key} ties checkpoints to the number of ranks that wrote them: remove it"
            )
    return stage


def _check_optimizer(raw: dict[str, Any], path: str) -> float:
    optimizer = raw["optimizer"]
    if not optimizer.get("type") or not isinstance(optimizer.get("params"), dict) or "lr" not in optimizer["params"]:
        raise ValueError(f"{path}: optimizer needs a type and params.lr, for example AdamW with lr 5e-4")
    return float(optimizer["params"].get("weight_decay", 0.0))


def _risks(raw: dict[str, Any], precision: str) -> list[str]:
    risks = []
    if precision != "fp32":
        if raw.get("data_types", {}).get("grad_accum_dtype") != "fp32":
            risks.append("data_types.grad_accum_dtype is not fp32: micro-batches add up with 16-bit rounding (~8e-3)")
        if raw.get("communication_data_type") != "fp32":
            risks.append(
                "communication_data_type is not fp32: gradients are rounded to 16 bit between ranks (1e-3 to 3e-3)"
            )
    params = raw["optimizer"]["params"]
    if raw["optimizer"]["type"] in ("Adam", "AdamW") and params.get("torch_adam") is not True:
        risks.append("optimizer.params.torch_adam is not true: the first start compiles DeepSpeed's Adam (~40 s)")
    if raw.get("timers", {}).get("throughput", {}).get("enabled", True):
        risks.append(
            "timers.throughput.enabled is not false: DeepSpeed waits for the device twice in every micro-batch"
        )
    if not raw["gradient_clipping"]:
        risks.append("gradient_clipping is 0: nothing bounds an update (the recipe clips at 5.0)")
    return risks
