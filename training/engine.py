"""DeepSpeed's engine, started the one way this harness uses it: global denominators in the loss, sums between ranks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from training.ds_config import DeepSpeedConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices decay, vectors (biases and norms) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def linear_schedule(num_updates: int, warmup_share: float) -> Callable[[int], float]:
    """Factor on the learning rate of update k = 0, 1, ...: linear warm-up, then linear decay to 0 after the last one."""
    warmup = round(warmup_share * num_updates)

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return max(0.0, (num_updates - update) / max(1, num_updates - warmup))

    return factor


def start_engine(model: nn.Module, config: DeepSpeedConfig, num_updates: int, warmup_share: float) -> Any:
    """A DeepSpeed engine around `model`, which is moved and cast as the JSON says."""
    import deepspeed

    schedule = linear_schedule(num_updates, warmup_share)
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=parameter_groups(model, config.weight_decay),
        config=config.raw,
        lr_scheduler=lambda optimizer: LambdaLR(optimizer, schedule),
        dist_init_required=False,
    )
    if hasattr(
        engine.optimizer.loss_scaler if hasattr(engine.optimizer, "loss_scaler") else None, "raise_error_at_min_scale"
    ):
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False  # --max_skipped_updates decides, and says more
    if engine.gradient_accumulation_steps() != config.micro_batches_per_update:
        raise AssertionError("DeepSpeed derived another accumulation than we did")
    return engine


def backward(engine: Any, loss: Tensor) -> None:
    """The loss is already this micro-batch's share of the update's mean, so DeepSpeed must not divide it again."""
    engine.backward(loss, scale_wrt_gas=False)


def optimizer_figures(engine: Any) -> dict[str, float]:
    """What the last update did, for the line of metrics."""
    return {
        "grad_norm": float(engine.get_global_grad_norm() or 0.0),
        "loss_scale": float(getattr(engine.optimizer, "loss_scale", 1.0)),
        "skipped_updates": engine.skipped_steps,
    }


def master_weights(engine: Any) -> dict[str, Tensor]:
    """fp32 weights by parameter name, on the CPU of rank 0 and empty elsewhere; every rank must call it."""
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in engine.module.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        if engine.global_rank == 0:
            weights[name] = (parameter if full is None else full).detach().to("cpu", torch.float32)
    return weights
