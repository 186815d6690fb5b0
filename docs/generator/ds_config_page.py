"""The page of the DeepSpeed JSON's keys, made by reading good and broken ones as train.py would."""

import copy
import json
import tempfile
from collections.abc import Iterator
from typing import Any

from docs.generator.commands import ROOT
from docs.generator.markdown import NOTE, cell, code, table
from training.ds_config import KNOWN, REFUSED, REQUIRED, read_ds_config

SHIPPED = tuple(sorted((ROOT / "ds_configs").glob("*.json")))

KEYS = {
    "train_batch_size": "sequences of an update, on all ranks together",
    "train_micro_batch_size_per_gpu": "sequences that a rank holds at a time; accumulation is derived from it",
    "gradient_clipping": "largest norm of an update's gradient; 0 does not clip",
    "gradient_allreduce_op": "must be `sum`: the loss already carries the denominators of the whole update",
    "optimizer": "`type` and `params`, of which `lr` must be there; `lr` is the learning rate after the warm-up",
    "zero_optimization": "`stage` 1 or 2, buckets, overlap",
}
"""What each required key is. The page is not written without one of them."""

WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("`gradient_allreduce_op` not `sum`", {"gradient_allreduce_op": "mean"}),
    ("`prescale_gradients` true, or a predivide factor", {"prescale_gradients": True}),
    ("a misspelt key", {"gradient_cliping": 1.0}),
    ("`train_batch_size` that does not divide", {"train_batch_size": 100}),
    ("`gradient_accumulation_steps` that contradicts", {"gradient_accumulation_steps": 3}),
    ("bf16 and fp16 together", {"fp16": {"enabled": True}}),
    ("fp16 on a CPU", {"bf16": {"enabled": False}, "fp16": {"enabled": True}}),
    ("`bf16_master_weights_and_grads`", {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}),
    ("`check_grad_overflow` false", {"bf16": {"enabled": True, "check_grad_overflow": False}}),
    ("`stage` 0 or 3", {"zero_optimization": {"stage": 3}}),
    ("`compute_grad_norm` false", {"zero_optimization": {"stage": 2, "compute_grad_norm": False}}),
    ("`round_robin_gradients`", {"zero_optimization": {"stage": 2, "round_robin_gradients": True}}),
    ("an optimizer without a learning rate", {"optimizer": {"type": "AdamW", "params": {}}}),
)
"""What is wrong, and the change of ds_configs/zero2.json that makes it so; the checks themselves say the rest."""

RISKY: dict[str, Any] = {
    "gradient_clipping": 0.0,
    "communication_data_type": None,
    "data_types": None,
    "timers": None,
    "optimizer": {"type": "AdamW", "params": {"lr": 5e-4}},
}
"""Changes of ds_configs/zero2.json that are allowed and warned about; None leaves a key out."""

NUM_RANKS = 2


def ds_config() -> str:
    """docs/reference/ds-config.md."""
    zero2 = json.loads((ROOT / "ds_configs/zero2.json").read_text())
    refused = [(what, cell(_refusal(zero2 | change))) for what, change in WRONG]
    others = ", ".join(code(key) for key in sorted(KNOWN - set(REQUIRED)))
    return _DS_CONFIG.format(
        note=NOTE,
        num_ranks=NUM_RANKS,
        required=table(("key", ""), [(code(key), KEYS[key]) for key in REQUIRED]),
        others=others,
        refused_keys=table(("key", "why"), [(code(key), cell(why)) for key, why in REFUSED.items()]),
        refused_values=table(("what", "the message"), refused),
        warnings="".join(f"- {cell(warning)}\n" for warning in _warnings(zero2)),
        shipped=table(("", *(code(path.name) for path in SHIPPED)), _compared()),
    )


def _read(content: dict[str, Any]) -> Any:
    """Errors: ValueError, its message without the name of the file."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(content, file)
        file.flush()
        try:
            return read_ds_config(file.name, num_ranks=NUM_RANKS, device_type="cpu")
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{file.name}: ")) from None


def _refusal(content: dict[str, Any]) -> str:
    try:
        _read(content)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"no longer refused: {content}")


def _warnings(zero2: dict[str, Any]) -> tuple[str, ...]:
    changed = {key: value for key, value in (zero2 | RISKY).items() if value is not None}
    return _read(changed).warnings


def _compared() -> Iterator[tuple[str, ...]]:
    """A row for each key in which the shipped files differ."""
    flat = [dict(_flat(json.loads(path.read_text()))) for path in SHIPPED]
    names = list(dict.fromkeys(name for file in flat for name in file))
    for name in names:
        values = [file.get(name) for file in flat]
        if any(value != values[0] for value in values):
            yield code(name), *("" if value is None else code(json.dumps(value)) for value in values)


def _flat(block: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in copy.deepcopy(block).items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_DS_CONFIG = """{note}# The DeepSpeed JSON

`--ds_config` names it. It owns precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate. No flag sets
any of them. The code owns the shape of the schedule. [training/ds_config.py](../../training/ds_config.py) checks it
before anything heavy starts.

## Required

DeepSpeed fills what is missing with defaults that changed between its versions, so these must be written out.

{required}
## Accepted besides

{others}. What they mean is in DeepSpeed's documentation. Any other key is refused, with the nearest known one in the
message.

## Refused

{refused_keys}
The next table is made by breaking `ds_configs/zero2.json` in one place and reading it for {num_ranks} CPU ranks:

{refused_values}
## Warned about

Allowed, and said in the first lines of the run's log:

{warnings}
## The files that are shipped

Where they differ:

{shipped}
`ds_configs/finetune/zero2.json` is for finetune.py and has another form: that of transformers' Trainer, with `auto` for what
its flags decide.
"""
