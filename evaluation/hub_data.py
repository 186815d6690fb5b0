"""A task's split through Hugging Face's `datasets`: from the hub, or a folder in the form of one of its repositories."""

import os
from typing import TYPE_CHECKING, Any

from data.sources.record import printable
from evaluation.examples import Answer, Example, Split
from evaluation.squad_files import question_of
from evaluation.tasks import Kind, Task

if TYPE_CHECKING:
    from datasets import Dataset


def read_hub(task: Task, split: str, name: str) -> Split:
    """The examples of `name`, or of the task's own repository where it is empty.

    Errors: FileNotFoundError for what is not there or cannot be reached, ValueError for another task's data.
    """
    path, config = task.hub
    path = os.path.expanduser(name) or path
    dataset = _load(task, split, path, config)
    _check_columns(task, path, dataset)
    place = f"'{path}', split '{split}'"
    examples = tuple(_example(task, f"{place}, row {number + 1}", number, row) for number, row in enumerate(dataset))
    if not examples:
        raise ValueError(f"{place}: no examples. Give hf: alone for {task.title} of the hub")
    return Split(examples, ())


def _load(task: Task, split: str, path: str, config: str | None) -> "Dataset":
    from datasets import load_dataset

    named = f"'{path}'" + (f" ({config})" if config else "")
    try:
        return load_dataset(path, config, split=split)
    except (FileNotFoundError, ConnectionError) as error:
        reason = printable(" ".join(str(error).split()))
        raise FileNotFoundError(
            f"{named} cannot be found or reached: {reason}. Without a network, give the folder of {task.title}'s files"
        ) from error
    # It passes on whatever the dozen libraries below it raise.
    except Exception as error:
        reason = printable(" ".join(str(error.__cause__ or error).split()))
        raise ValueError(
            f"{named}, split '{split}' cannot be read: {reason}. Give hf: alone for the hub's own"
        ) from error


def _check_columns(task: Task, path: str, dataset: "Dataset") -> None:
    """Errors: ValueError where a column is missing, or the classes have another order than ours."""
    wanted = [*task.text_columns, "answers" if task.kind is Kind.SPAN else "label"]
    missing = [name for name in wanted if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"'{path}': no column '{missing[0]}' (found: {printable(', '.join(dataset.column_names))}). "
            f"{task.title} has {', '.join(wanted)}"
        )
    names = getattr(dataset.features[wanted[-1]], "names", None)
    if names is not None and tuple(names) != task.labels:
        raise ValueError(
            f"'{path}', column 'label': the classes are {printable(', '.join(names))}. "
            f"{task.title}'s are {', '.join(task.labels)}, in this order"
        )


def _example(task: Task, place: str, number: int, row: dict[str, Any]) -> Example:
    for name in task.text_columns:
        if not isinstance(row[name], str):
            raise ValueError(f"{place}, column '{name}': {printable(repr(row[name]))} is no text. Is it {task.title}?")
    texts = tuple(row[name] for name in task.text_columns)
    if task.kind is Kind.SPAN:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        return question_of(place, row, tuple(Answer(text, start) for text, start in pairs))
    label = row["label"]
    if task.kind is Kind.CLASSIFICATION:
        is_label = type(label) is int and 0 <= label < len(task.labels)
    else:
        assert task.label_range is not None
        is_label = isinstance(label, int | float) and task.label_range[0] <= label <= task.label_range[1]
    if not is_label:
        raise ValueError(
            f"{place}, column 'label': {printable(repr(label))} is no label of {task.title}. Give a split with labels"
        )
    return Example(str(number), texts, float(label) if task.kind is Kind.REGRESSION else label)
