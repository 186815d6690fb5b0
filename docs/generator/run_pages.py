"""The pages of what a run leaves behind: its exit code, and the fields of its metrics.jsonl."""

import ast
import fnmatch
import re
from collections.abc import Callable, Iterator

from docs.generator.commands import ROOT
from docs.generator.markdown import NOTE, cell, code, table
from training.lifecycle import ExitCode

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


def _started_again() -> Callable[[int], bool]:
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


_EXIT_CODES = """{note}# Exit codes of train.py

Declared in [training/lifecycle.py](../../training/lifecycle.py). The last column is what
[launcher/slurm.sbatch](../../launcher/slurm.sbatch) does. It gives up after three starts in a row without a new checkpoint.

{table}
Launchers that lose exit codes, and ends by a signal (128 + its number), are in
[launcher/README.md](../../launcher/README.md#exit-codes). The last line of `runs/x/attempts.jsonl` has the code, whatever
the launcher makes of it. Other commands end with 0, with 2 and one line on stderr for bad input, or as their pages say.
"""

_METRICS = """{note}# Fields of metrics.jsonl

`runs/NAME/metrics.jsonl` has a JSON object a line. Losses are means over the updates since the line before; shares of time
and the speed are of the same updates. NaN is written as null, and such a point is left out of TensorBoard.

## Training, every `--log_every` updates

{training}
With `--objective mlm` there is no teacher: `loss` and `loss_mlm` alone. The shares do not overlap.

## Evaluation, every `--eval_every` updates, and before the first

{evaluation}"""
