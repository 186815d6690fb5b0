"""The labelled examples of a task, from its published files or through Hugging Face's `datasets`.

`read_split` is the door; each kind of file has a room of its own: evaluation.glue_files, evaluation.squad_files and
evaluation.hub_data.
"""

import json
from pathlib import Path

from data.sources.compression import COMPRESSIONS, UNREADABLE, decompressed, explained, split_compression
from data.sources.record import printable
from evaluation.examples import Example, Split
from evaluation.glue_files import read_glue
from evaluation.hub_data import read_hub
from evaluation.squad_files import read_squad
from evaluation.tasks import GLUE, IMDB, SQUAD, Task

_HUB = "hf:"
_FOLDERS = {
    **{task.name: ("glue", "GLUE") for task in GLUE},
    IMDB.name: ("imdb", "IMDb"),
    SQUAD.name: ("squad", "SQuAD"),
}
"""Where a task's files are below a folder that has several tasks'."""
_SQUAD_FILES = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}


def read_split(task: Task, split: str, source: str) -> Split:
    """All examples of one of `task.splits`, in the order of the file.

    `source` is a folder with the task's published files (or GLUE's folder, with one folder for each task), a file of SQuAD,
    or `hf:NAME`, a data set of the hub or a folder in its form; `hf:` alone is the task's own on the hub.
    Errors: FileNotFoundError for what is not there, ValueError for a split or a file that is not the task's, in one line
    with the file, the line and the column.
    """
    if split not in task.splits:
        raise ValueError(f"{task.title} has no labelled split '{split}'. Give one of {', '.join(task.splits)}")
    if source.startswith(_HUB):
        return read_hub(task, split, source.removeprefix(_HUB))
    path = Path(source).expanduser()
    if task is SQUAD:
        return read_squad(path if path.is_file() else _existing(task, path, (_SQUAD_FILES[split],)))
    if not path.is_dir():
        raise FileNotFoundError(
            f"'{source}' is no folder. Give the one that holds {task.title}'s files, or {_HUB}NAME for a data set of the hub"
        )
    if task is IMDB:
        return _read_imdb(_existing(task, path, tuple(f"{split}.jsonl{suffix}" for suffix in ("", *COMPRESSIONS))))
    assert task in GLUE
    return read_glue(task, split, path / task.title if (path / task.title).is_dir() else path)


def source_of(task: Task, data: str) -> str:
    """The task's own place in `data`, which may be a folder with glue/, imdb/ and squad/ in it; for `read_split`."""
    below = [Path(data).expanduser() / name for name in _FOLDERS[task.name]]
    return next((str(folder) for folder in below if not data.startswith(_HUB) and folder.is_dir()), data)


def _existing(task: Task, folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"'{folder}' has no {' or '.join(names)}. Give the folder that holds {task.title}'s files, or {_HUB}NAME"
        )
    return found[0]


def _read_imdb(path: Path) -> Split:
    """Lines of {"text": "...", "label": 0 or 1}, other fields aside."""
    examples = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(decompressed(file, split_compression(path.name)[1]), start=1):
                examples.append(_review(path, number, line))
    except UNREADABLE as error:
        raise OSError(f"{path}: cannot be read ({explained(error)}). Is the file complete?") from error
    if not examples:
        raise ValueError(f"{path}: no examples. Is the file complete?")
    return Split(tuple(examples), (path,))


def _review(path: Path, number: int, line: bytes) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path}, line {number}: not JSON ({error}). Give a file of one record a line") from error
    text, label = (record.get("text"), record.get("label")) if isinstance(record, dict) else (None, None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f'{path}, line {number}, field \'text\': no text. Each line is {{"text": ..., "label": 0 or 1}}'
        )
    if type(label) is not int or not 0 <= label < len(IMDB.labels):
        raise ValueError(
            f"{path}, line {number}, field 'label': {printable(repr(label))} is neither 0 (negative) nor 1 (positive). "
            "Give reviews that have a label"
        )
    return Example(str(number - 1), (text,), label)
