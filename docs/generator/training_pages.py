"""What train.py reads and writes besides flags: the DeepSpeed JSON's keys, exit codes, the fields of metrics.jsonl."""

import ast
import copy
import fnmatch
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generator.commands import ROOT
from docs.generator.markdown import NOTE, cell, code, table
from training.ds_config import KNOWN, REFUSED, REQUIRED, read_ds_config
from training.lifecycle import ExitCode

SHIPPED = tuple(sorted((ROOT / "ds_configs").glob("*.json")))

KEYS = {
    "train_batch_size": "sequences of an update, on all ranks together",
    "train_micro_batch_size_per_gpu": "sequences that a rank holds at a time; how many times it does so in an update is derived",
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

FIELDS = {
    "update": "number of the update, from 1; 0 is before the first",
    "epoch": "passes over the text so far",
    "epoch_NAME": "with weighted corpora: passes over each",
    "sequences": "read so far",
    "tokens": "read so far, padding not counted, because there is none",
    "loss": "what is minimised: the weighted sum of the components",
    "loss_distillation": "T² KL of the softened predictions, nats per attended position",
    "loss_mlm": "cross entropy, nats per masked position",
    "loss_cosine": "1 - cos of the last hidden states, per attended position",
    "loss_distillation_weighted": "the same times `--weight_distillation`",
    "loss_mlm_weighted": "the same times `--weight_mlm`",
    "loss_cosine_weighted": "the same times `--weight_cosine`",
    "learning_rate": "of the last update",
    "grad_norm": "of the last update, before clipping",
    "loss_scale": "1 but in fp16",
    "skipped_updates": "so far, because gradients were not finite",
    "tokens_per_second": "of all ranks together; evaluation and what training waits for a checkpoint are left out",
    "mfu": "FLOPs that real tokens need, over what the ranks' largest matrix product reached at the start of the run",
    "data_wait_share": "of the time, waiting for batches",
    "teacher_share": "of the time, the teacher's forward pass",
    "student_share": "of the time, the student's forward pass",
    "head_share": "of the time, vocabulary projection and loss, with their gradients where they are fused",
    "backward_share": "of the time, the rest of backward",
    "optimizer_share": "of the time, DeepSpeed's step",
    "communication_share": "of the time, what computing waits for communication",
    "peak_memory_bytes": "of the rank with the most: allocated on a GPU, resident on a CPU",
    "eval_mlm_loss": "nats per masked token of the held-out text, fixed masks",
    "eval_mlm_accuracy": "share of masked tokens predicted first",
    "eval_perplexity": "e to the `eval_mlm_loss`",
    "eval_distillation": "T² KL from the teacher, nats per attended position",
    "eval_agreement": "share of masked positions at which student and teacher put the same word first",
    "eval_cosine": "1 - cos of the last hidden states, per attended position",
    "eval_teacher_mlm_loss": "the teacher's own, once, before update 1",
    "eval_teacher_mlm_accuracy": "the teacher's own",
    "eval_teacher_perplexity": "the teacher's own",
    "eval_teacher_drift": "`--teacher_dtype fp8`: distillation loss of the 8-bit teacher against its 16-bit version",
}
"""Every field of metrics.jsonl and its meaning."""


# -- the DeepSpeed JSON --


def ds_config() -> str:
    """docs/reference/ds-config.md."""
    zero2 = json.loads((ROOT / "ds_configs/zero2.json").read_text())
    refused = [(what, cell(_refusal(zero2 | change))) for what, change in WRONG]
    others = ", ".join(code(key) for key in sorted(KNOWN - set(REQUIRED)))
    return _DS_CONFIG.format(
        note=NOTE,
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


# -- exit codes --


def exit_codes() -> str:
    """docs/reference/exit-codes.md."""
    texts = _texts_of_codes()
    again = _started_again()
    rows = [
        (str(member.value), code(member.name), cell(texts[member.name]), "yes" if again(member.value) else "no")
        for member in ExitCode
    ]
    return _EXIT_CODES.format(note=NOTE, table=table(("code", "name", "", "started again"), rows))


def _texts_of_codes() -> dict[str, str]:
    """Member -> the string beneath it."""
    tree = ast.parse((ROOT / "training/lifecycle.py").read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == ExitCode.__name__)
    texts = {}
    for node, after in zip(found.body, found.body[1:], strict=False):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[ast.unparse(node.targets[0])] = str(after.value.value)
    return texts


def _started_again() -> Any:
    """Whether launcher/slurm.sbatch queues a job again that ended with a code: the patterns of its `case`."""
    script = (ROOT / "launcher/slurm.sbatch").read_text(encoding="utf-8")
    (patterns,) = re.findall(r"^case \$code in\n(.*?)\)\s+;;", script, re.MULTILINE)
    alternatives = [pattern.strip() for pattern in patterns.split(" | ")]
    return lambda value: any(fnmatch.fnmatchcase(str(value), pattern) for pattern in alternatives)


# -- metrics.jsonl --


def metrics() -> str:
    """docs/reference/metrics.md."""
    from training.metrics import tensorboard_tag  # torch comes with it

    def rows(of_evaluation: bool) -> Iterator[tuple[str, ...]]:
        for name, meaning in FIELDS.items():
            if name.startswith("eval_") == of_evaluation:
                yield code(name), meaning, "" if name == "update" else code(tensorboard_tag(name))

    columns = ("field", "", "in TensorBoard")
    return _METRICS.format(note=NOTE, training=table(columns, rows(False)), evaluation=table(columns, rows(True)))


_DS_CONFIG = """{note}# The DeepSpeed JSON

`--ds_config` names it. It owns precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate, and train.py has no flag for
any of them. The code owns the shape of the schedule. Checked by [training/ds_config.py](../../training/ds_config.py) before anything
heavy starts.

## Required

DeepSpeed fills what is missing with defaults that changed between its versions, so these must be written out.

{required}
## Accepted besides

{others}. What they mean is in DeepSpeed's documentation. Any other key is refused, with the nearest known one in the message.

## Refused

{refused_keys}
The table below is made by breaking `ds_configs/zero2.json` in one place and reading it for {ranks} CPU ranks:

{refused_values}
## Warned about

Allowed, and said in the first lines of the run's log:

{warnings}
## The files that are shipped

Where they differ:

{shipped}
`ds_configs/finetune/zero2.json` is another form, for finetune.py: that of transformers' Trainer, with `auto` for what its flags decide.
""".replace("{ranks}", str(NUM_RANKS))

_EXIT_CODES = """{note}# Exit codes of train.py

Declared in [training/lifecycle.py](../../training/lifecycle.py). The last column is what
[launcher/slurm.sbatch](../../launcher/slurm.sbatch) does; of failures that another start may not meet again it gives up after three
starts in a row without a new checkpoint.

{table}
Launchers that lose exit codes, and ends by a signal (128 + its number), are in [launcher/README.md](../../launcher/README.md). The last line of
`runs/x/attempts.jsonl` has the code whatever the launcher makes of it. Other commands: 0 done, 2 bad input with one line on stderr, and
what their pages say.
"""

_METRICS = """{note}# Fields of metrics.jsonl

`runs/NAME/metrics.jsonl` has a JSON object a line. Losses are means over the updates since the line before, shares and memory are taken over
the same time. NaN is written as null, and such a point is left out of TensorBoard.

## Training, every `--log_every` updates

{training}
With `--objective mlm` there is no teacher: `loss` and `loss_mlm` alone. The shares do not overlap.

## Evaluation, every `--eval_every` updates, and before the first

{evaluation}"""
