"""GLUE's tasks in the files in which they are published: GLUE's own, and the original corpora of CoLA, STS-B and MRPC.

Fields are separated by tabs and never quoted: a quotation mark is part of its text, and only a line feed ends a row.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from data.sources.record import not_utf8, printable
from evaluation.examples import Example, Split
from evaluation.tasks import Kind, Task

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DEV_IDS = "mrpc_dev_ids.tsv"
_MOST_SKIPPED = 0.01
"""Share of broken rows above which a file is taken for another one than was meant."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a task are written."""

    texts: tuple[str, ...]
    """Columns of the texts, in the order of `Task.text_columns`."""
    label: str = "label"
    """Column of the label."""
    written: tuple[str, ...] = ("0", "1")
    """Labels as the files have them, class 0 first."""
    columns: tuple[str, ...] = ()
    """All columns of a file without a header; none where every file has one."""
    optional_columns: int = 0
    """How many more such a row may have at its end."""
    pair_ids: tuple[str, ...] = ()
    """Columns of the ids by which mrpc_dev_ids.tsv names the pairs of the dev split."""
    files: Mapping[str, tuple[tuple[str, ...], ...]] = field(
        default_factory=lambda: {"train": (("train.tsv",),), "validation": (("dev.tsv",),)}
    )
    """Split -> sets of files that hold it; the first set of which all are there is read."""
    skips_broken_rows: bool = False
    """Whether the published files themselves have rows with too few or too many fields."""


_ENTAILMENT = ("entailment", "not_entailment")
LAYOUTS = {
    "cola": Layout(
        texts=("sentence",),
        columns=("source", "label", "original_mark", "sentence"),
        files={
            "train": (("train.tsv",), ("in_domain_train.tsv",)),
            "validation": (("dev.tsv",), ("in_domain_dev.tsv", "out_of_domain_dev.tsv")),
        },
    ),
    "mnli": Layout(
        texts=("sentence1", "sentence2"),
        label="gold_label",
        written=("entailment", "neutral", "contradiction"),
        files={
            "train": (("train.tsv",),),
            "validation_matched": (("dev_matched.tsv",),),
            "validation_mismatched": (("dev_mismatched.tsv",),),
        },
    ),
    "mrpc": Layout(
        texts=("#1 String", "#2 String"),
        label="Quality",
        pair_ids=("#1 ID", "#2 ID"),
        files={
            "train": (("train.tsv",), ("msr_paraphrase_train.txt", _DEV_IDS)),
            "validation": (("dev.tsv",), ("msr_paraphrase_train.txt", _DEV_IDS)),
        },
    ),
    "qnli": Layout(texts=("question", "sentence"), written=_ENTAILMENT),
    # Some questions have line breaks, and no quotes that would hold their rows together.
    "qqp": Layout(texts=("question1", "question2"), label="is_duplicate", skips_broken_rows=True),
    "rte": Layout(texts=("sentence1", "sentence2"), written=_ENTAILMENT),
    "sst2": Layout(texts=("sentence",)),
    "stsb": Layout(
        texts=("sentence1", "sentence2"),
        label="score",
        written=(),
        columns=("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2"),
        optional_columns=2,  # where the sentences are from
        files={"train": (("train.tsv",), ("sts-train.csv",)), "validation": (("dev.tsv",), ("sts-dev.csv",))},
    ),
    "wnli": Layout(
        texts=("sentence1", "sentence2"),
        columns=("index", "sentence1", "sentence2", "label"),
        # Some copies keep 117 of the 635 training rows apart, in a file without a header.
        files={"train": (("train.tsv", "val.tsv"), ("train.tsv",)), "validation": (("dev.tsv",),)},
    ),
}
"""By the name of the task."""


@dataclass(frozen=True)
class _Row:
    """A line and where it is."""

    file: Path
    line: int
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


def read_glue(task: Task, split: str, folder: Path) -> Split:
    """The examples of a split of one of GLUE's tasks, whose files are in `folder`.

    Errors: FileNotFoundError where no complete set of files is there, ValueError for a file that is not as published.
    """
    layout = LAYOUTS[task.name]
    files = _files(task, split, layout, folder)
    dev_ids = _dev_ids(files.pop()) if files[-1].name == _DEV_IDS else None
    examples: list[Example] = []
    skipped: list[str] = []
    rows_by_index: dict[str, _Row] = {}
    for file in files:
        for row, cells in _cells(layout, file, skipped):
            if len(files) > 1:
                _check_distinct(row, cells, rows_by_index)
            if dev_ids is None or (tuple(cells[name] for name in layout.pair_ids) in dev_ids) == (split != "train"):
                texts = tuple(cells[name] for name in layout.texts)
                examples.append(Example(str(len(examples)), texts, _label(task, layout, row, cells[layout.label])))
    if not examples:
        raise ValueError(f"{files[0]}: no examples of split '{split}'. Is the file complete?")
    if len(skipped) > _MOST_SKIPPED * len(examples):
        raise ValueError(f"{skipped[0]}, and {len(skipped) - 1} rows more like it. Is the file as it was published?")
    return Split(tuple(examples), tuple(files), tuple(skipped))


def _cells(layout: Layout, file: Path, skipped: list[str]) -> Iterator[tuple[_Row, dict[str, str]]]:
    """Each row of a file but its header, and its fields by column; adds to `skipped` those that may be left out."""
    rows = _rows(file)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{file}: it is empty. Copy or download it again")
    columns, has_header = _columns(layout, first)
    for row in rows if has_header else chain([first], rows):
        problem = _width_problem(row, columns, 0 if has_header else layout.optional_columns)
        if not problem:
            yield row, dict(zip(columns, row.fields, strict=False))
        elif layout.skips_broken_rows:
            skipped.append(f"{row}: {problem}")
        else:
            raise ValueError(f"{row}: {problem}. Is the file as it was published? Fields are never quoted")


def _check_distinct(row: _Row, cells: dict[str, str], rows_by_index: dict[str, _Row]) -> None:
    """A split in several files has no row twice, such as those of a dev file that bears a training file's name."""
    index = cells.get("index")
    if index is None:
        return  # CoLA's rows have no number, and some of its sentences occur twice
    if index in rows_by_index:
        raise ValueError(
            f"{row}, column 'index': '{printable(index)}' is {rows_by_index[index]} as well. "
            f"Leave out {row.file.name} if it is no part of this split"
        )
    rows_by_index[index] = row


def _files(task: Task, split: str, layout: Layout, folder: Path) -> list[Path]:
    sets = layout.files[split]
    for names in sets:
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    raise FileNotFoundError(
        f"'{folder}' has no {', or '.join(' with '.join(names) for names in sets)}: split '{split}' of {task.title}. "
        f"Give the folder that holds these files, or a folder with a folder {task.title}"
    )


def _rows(file: Path) -> Iterator[_Row]:
    """Empty lines are rows too, of a single, empty field."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            try:
                text = content.removesuffix(b"\n").removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{file}, line {number}: {not_utf8(error.reason, error.start)}") from error
            yield _Row(file, number, tuple(text.split("\t")))


def _columns(layout: Layout, first: _Row) -> tuple[tuple[str, ...], bool]:
    """The names of the columns, and whether the first row is where they are from."""
    wanted = {*layout.texts, layout.label, *layout.pair_ids}
    if wanted <= set(first.fields):
        return first.fields, True
    if layout.columns:
        return layout.columns, False
    missing = ", ".join(f"'{name}'" for name in sorted(wanted - set(first.fields)))
    raise ValueError(
        f"{first}: no column {missing} (found: {printable(', '.join(first.fields))}). "
        "Give the published file of a split with labels; its first line names the columns"
    )


def _width_problem(row: _Row, columns: tuple[str, ...], optional: int) -> str:
    """What is wrong with the number of fields; empty where nothing is."""
    found, least = len(row.fields), len(columns)
    if found in (least, least + optional):
        return ""
    last = columns[min(found, least) - 1]
    expected = f"{least} or {least + optional}" if optional else str(least)
    return f"{found} fields, not {expected}; the last is column '{printable(last)}'"


def _label(task: Task, layout: Layout, row: _Row, text: str) -> int | float:
    place = f"{row}, column '{layout.label}': '{printable(text)}'"
    if task.kind is Kind.CLASSIFICATION:
        if text not in layout.written:
            raise ValueError(
                f"{place} is none of {', '.join(layout.written)}. Give a split that has {task.title}'s labels"
            )
        return layout.written.index(text)
    assert task.label_range is not None
    smallest, largest = task.label_range
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not smallest <= value <= largest:
        raise ValueError(
            f"{place} is no number from {smallest} to {largest}. Give a split that has {task.title}'s labels"
        )
    return value


def _dev_ids(file: Path) -> set[tuple[str, ...]]:
    """The pairs of sentences that GLUE took from MRPC's training file for its dev split."""
    pairs: set[tuple[str, ...]] = set()
    for row in _rows(file):
        if len(row.fields) != 2:
            raise ValueError(f"{row}: {len(row.fields)} fields, not the ids of 2 sentences. Is it as it was published?")
        pairs.add(row.fields)
    return pairs
