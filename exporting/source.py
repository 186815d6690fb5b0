"""What --input is: a run, a student's folder or a fine-tuned one; its model, its tokenizer and what is known of them.

Models and tokenizers are transformers' own.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from evaluation.report.runs import Run, read_run
from evaluation.results import FILE, TaskResult, read_result
from evaluation.speed_models import Sizes, load
from evaluation.tasks import GLUE, IMDB, SQUAD, TASKS, Task
from finetuning.material import model_columns
from finetuning.starts import digest_of, load_tokenizer, num_positions
from model.config import read_json


class Head(Enum):
    """What a model says; the value is golden.json's word for it."""

    MASKED_LM = "mlm"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SPAN = "span"


HEADS = {
    "ForMaskedLM": Head.MASKED_LM,
    "ForSequenceClassification": Head.CLASSIFICATION,
    "ForQuestionAnswering": Head.SPAN,
}
"""How the class that config.json names ends -> its head; a classification with one output is a regression."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the files beside a model say of its making. What is not there is None."""

    run: Run | None = None
    """That distilled it, or what it was fine-tuned from."""
    result: TaskResult | None = None
    """Of its fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that can be exported."""

    given: str
    """As --input had it."""
    folder: Path
    """With config.json and weights."""
    model: nn.Module
    """transformers', fp32, evaluation mode, CPU."""
    tokenizer: Any
    """transformers' fast one."""
    head: Head
    task: Task | None
    """None for a masked LM, and where it is not known."""
    labels: tuple[str, ...]
    """Class 0 first."""
    max_length: int
    """Tokens of the longest input: that of the fine-tuning, else all that the model has positions for."""
    input_names: tuple[str, ...]
    """Columns of the tokenizer that the model reads, in the order of `PlainModel.input_names`."""
    sizes: Sizes
    digest: str
    """Of the weights."""
    provenance: Provenance = field(default_factory=Provenance)


def load_source(given: str) -> Source:
    """Errors: FileNotFoundError, or ValueError for a folder that holds no model that can be exported."""
    folder, run, result = _locate(Path(given).expanduser())
    head = _head_of(folder)
    loaded = load(str(folder))
    model, config = loaded.module, loaded.module.config
    if head is Head.CLASSIFICATION and config.num_labels == 1:
        head = Head.REGRESSION
    tokenizer = load_tokenizer(folder)
    _check_tokenizer(folder, tokenizer, config, head)
    labels = tuple(str(config.id2label[row]) for row in range(config.num_labels)) if head is Head.CLASSIFICATION else ()
    longest = num_positions(config)
    if result is not None:
        longest = min(longest, int(result.settings.get("max_length", longest)))
        run = run or _run_of(result)
    tokenizer.model_max_length = longest
    return Source(
        given=given,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        head=head,
        task=TASKS[result.task] if result is not None else _task_of(head, labels),
        labels=labels,
        max_length=longest,
        input_names=model_columns(model),
        sizes=loaded.sizes,
        digest=digest_of(folder),
        provenance=Provenance(run=run, result=result),
    )


def _locate(given: Path) -> tuple[Path, Run | None, TaskResult | None]:
    """The model's folder, and the run or result that it stands beside."""
    if not given.is_dir():
        raise FileNotFoundError(f"no folder at '{given}'. Give a run, a student's folder, or finetune.py's OUTPUT/TASK")
    if (given / FILE).is_file():
        own = read_result(given)
        if not own.saved or not (given / own.saved).is_dir():
            raise ValueError(f"{given} has a result, but no model was kept. Fine-tune again, without --no_keep_model")
        return given / own.saved, None, own
    if several := sorted(path.parent.name for path in given.glob(f"*/{FILE}")):
        raise ValueError(
            f"{given} has several tasks. Give one of them: {', '.join(str(given / name) for name in several)}"
        )
    config = read_json(given / "config.json") if (given / "config.json").is_file() else {}
    if "flags" in config:
        run = read_run(given, given.resolve().name)
        if not run.has_student:
            raise ValueError(
                f"{given} is a run without a student ({run.state}): it is written at the end. Go on with train.py --resume"
            )
        return given / "student", run, None
    if "model_type" not in config:
        raise ValueError(
            f"{given} holds neither a run nor a model (no config.json of one). Give a run, a student's folder, or "
            "finetune.py's OUTPUT/TASK"
        )
    parent = given.resolve().parent
    result = read_result(parent) if (parent / FILE).is_file() else None
    is_its = result is not None and result.saved == given.resolve().name
    return given, _run_beside(given), result if is_its else None


def _run_beside(student: Path) -> Run | None:
    """Of RUN/student."""
    parent = student.resolve().parent
    try:
        return read_run(parent, parent.name) if student.resolve().name == "student" else None
    except ValueError:
        return None


def _run_of(result: TaskResult) -> Run | None:
    """That distilled what was fine-tuned, if it is still there and its student has the very weights."""
    student = Path(result.model).expanduser()
    try:
        is_same = digest_of(student) == result.settings.get("weights")
    except (OSError, ValueError):
        return None
    return _run_beside(student) if is_same else None


def _head_of(folder: Path) -> Head:
    raw = read_json(folder / "config.json")
    names = raw.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "a model without a head"
    head = next((head for end, head in HEADS.items() if name.endswith(end)), None)
    if head is None or raw.get("problem_type") == "multi_label_classification":
        what = "several labels at once" if head is not None else name
        raise ValueError(
            f"{folder}/config.json: {what} is not exported, only masked language models, sequence classification or "
            "regression, and question answering"
        )
    return head


def _task_of(head: Head, labels: tuple[str, ...]) -> Task | None:
    """By its classes, where only one task has them."""
    if head is Head.SPAN:
        return SQUAD
    names = tuple(label.casefold() for label in labels)
    found = [task for task in (*GLUE, IMDB) if names and task.labels == names]
    return found[0] if len(found) == 1 else None


def _check_tokenizer(folder: Path, tokenizer: Any, config: Any, head: Head) -> None:
    if len(tokenizer) > config.vocab_size:
        raise ValueError(f"{folder}: its tokenizer has {len(tokenizer):,} tokens, its model {config.vocab_size:,}")
    for role in ("pad_token", "cls_token", "sep_token", *(["mask_token"] if head is Head.MASKED_LM else [])):
        if getattr(tokenizer, role) is None:
            raise ValueError(f"{folder}: its tokenizer has no {role}, and {head.value} needs one")
