"""Datasets of Hugging Face: from the hub, in a folder that load_dataset accepts, or as save_to_disk left them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.sources.columns import ROWS_AT_ONCE, Rows, column_named, documents_of
from data.sources.item import Documents, Item, Meter, Part, Piece, pass_over
from data.sources.options import SourceOptions
from data.sources.record import Place, printable

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, IterableDataset

_PREFIX = "hf:"
_DEFAULT_SPLIT = "train"
# Rows of a stream after which a part may end; what is skipped costs as little for many as for one.
_ROWS_BETWEEN_CUTS = 64


@dataclass(frozen=True)
class DatasetName:
    """A dataset as it is named after --input."""

    given: str
    path: str
    config: str
    split: str
    is_saved: bool


def dataset_of(given: str) -> DatasetName | None:
    """The dataset that an argument names, or None where it names files. Errors: ValueError for `hf:` without a name."""
    if given.startswith(_PREFIX):
        path, config, split = [*given.removeprefix(_PREFIX).split(":", 2), "", ""][:3]
        if not path:
            raise ValueError(f"'{given}' names no dataset. Give hf:NAME, or hf:NAME:CONFIG:SPLIT; CONFIG may be empty")
        return DatasetName(given, os.path.expanduser(path), config, split or _DEFAULT_SPLIT, is_saved=False)
    path = os.path.expanduser(given)
    folder, _, split = path.rpartition(":")
    if _is_saved(path):
        return DatasetName(given, path, "", "", is_saved=True)
    if folder and not os.path.exists(path) and _is_saved(folder):
        return DatasetName(given, folder, "", split, is_saved=True)
    return None


def _is_saved(folder: str) -> bool:
    """Whether save_to_disk wrote it: a dataset, or one for each of several splits."""
    one, several = ("state.json", "dataset_info.json"), ("dataset_dict.json",)
    return any(all(os.path.isfile(os.path.join(folder, name)) for name in names) for names in (one, several))


def plan_dataset(name: DatasetName, options: SourceOptions, part_bytes: int) -> list[Piece | Item]:
    """Ranges of rows of about part_bytes of text; the files of a dataset that is streamed.

    Errors: FileNotFoundError for what is not there or cannot be reached, ValueError for an unknown configuration, split or
    column, listing those that exist.
    """
    if options.streaming and not name.is_saved:
        return _plan_stream(name, options.text_field, part_bytes)
    dataset = _saved(name) if name.is_saved else _loaded(name)
    column_named(dataset.features.arrow_schema, options.text_field, name.given)
    with _one_line(name.given):
        text = dataset.select_columns([options.text_field])
        bytes_per_row = max(1, dataset.data.column(options.text_field).nbytes // max(1, len(dataset.data)))
    rows_per_piece = max(1, part_bytes // bytes_per_row)
    plan: list[Piece | Item] = []
    for start in range(0, len(dataset), rows_per_piece):
        end = min(start + rows_per_piece, len(dataset))
        piece = DatasetRows(
            name=f"{name.given}, rows {start + 1:,} to {end:,}",
            size=(end - start) * bytes_per_row,
            identity=f"{name.given} {dataset._fingerprint} {start} {end}",
            input_bytes=(end - start) * bytes_per_row,
            dataset=text,
            given=name.given,
            start=start,
            end=end,
        )
        plan.append(piece)
    return plan


def _loaded(name: DatasetName) -> "Dataset":
    with _one_line(name.given):
        from datasets import load_dataset

        # Never into memory: what a process holds must not grow with the dataset.
        return load_dataset(name.path, name.config or None, split=name.split, keep_in_memory=False)


def _saved(name: DatasetName) -> "Dataset":
    with _one_line(name.given):
        from datasets import Dataset, load_from_disk

        loaded = load_from_disk(name.path, keep_in_memory=False)
    if isinstance(loaded, Dataset):
        if name.split:
            raise ValueError(f"'{name.path}' is one dataset without splits: give it without ':{name.split}'")
        return loaded
    split = name.split or (_DEFAULT_SPLIT if len(loaded) > 1 else next(iter(loaded), ""))
    if split not in loaded:
        raise ValueError(f"'{name.path}' has no split '{split}' (found: {', '.join(loaded)}). Give {name.path}:SPLIT")
    return loaded[split]


@dataclass(frozen=True, kw_only=True)
class DatasetRows(Piece):
    """Rows of a dataset on this machine's disk, mapped into memory."""

    dataset: "Dataset"
    """Its one column is the text."""
    given: str
    start: int
    end: int

    def documents(self, on_bytes: Callable[[int], None]) -> Documents:
        yield from Rows(self._arrays(), Place(self.given, lambda: self.start)).documents(self.end - self.start)
        on_bytes(self.size)

    def _arrays(self) -> Iterator["pa.Array"]:
        rows = self.dataset.select(range(self.start, self.end)).with_format("arrow")
        for table in _each(rows.iter(ROWS_AT_ONCE), self.given):
            yield from table.column(0).chunks


def _plan_stream(name: DatasetName, text_field: str, part_bytes: int) -> list[Piece | Item]:
    with _one_line(name.given):
        from datasets import load_dataset_builder

        builder = load_dataset_builder(name.path, name.config or None)
        dataset = builder.as_streaming_dataset(split=name.split)
        files = dataset.num_shards
        shards = [dataset.shard(num_shards=files, index=index) for index in range(files)]
    if dataset.features is not None:
        column_named(dataset.features.arrow_schema, text_field, name.given)
    splits: Any = builder.info.splits or {}
    total = splits[name.split].num_bytes if name.split in splits else None
    return [
        StreamedFile(
            name=f"{name.given}, file {index + 1:,} of {files:,}",
            size=total // files if total else part_bytes,
            identity=f"{name.given} {builder.config_id} {builder.hash} {index} of {files}",
            dataset=shard,
            text_field=text_field,
            part_bytes=part_bytes,
        )
        for index, shard in enumerate(shards)
    ]


@dataclass(frozen=True, kw_only=True)
class StreamedFile(Item):
    """One of the files of a dataset, read while it downloads."""

    dataset: "IterableDataset"
    text_field: str
    part_bytes: int

    def parts(self, is_wanted: Callable[[int], bool], on_bytes: Callable[[int], None]) -> Iterator[Part]:
        meter = Meter(self.size, on_bytes)
        stream = _Stream(self, meter)
        number = 0
        while not stream.is_at_end():
            if is_wanted(number):
                documents = stream.documents(self.part_bytes)
                yield number, documents
                pass_over(documents)
            else:
                stream.skip(self.part_bytes)
                yield number, None
            number += 1
        meter.finish()


class _Stream:
    """The rows of a streamed file; parts end at the first cut at which they have enough bytes of text."""

    def __init__(self, file: StreamedFile, meter: Meter) -> None:
        self._file = file
        self._meter = meter
        self._place = Place(file.name)
        self._arrays = self._read()
        self._next = next(self._arrays, None)
        self._rows = self._bytes = 0  # before _next

    def is_at_end(self) -> bool:
        return self._next is None

    def documents(self, text_bytes: int) -> Documents:
        for array, rows_before in self._until(text_bytes):
            yield from documents_of(array, self._place, rows_before)

    def skip(self, text_bytes: int) -> None:
        for _ in self._until(text_bytes):
            pass

    def _until(self, text_bytes: int) -> Iterator[tuple["pa.Array", int]]:
        end = self._bytes + text_bytes
        while self._next is not None and self._bytes < end:
            array, rows_before = self._next, self._rows
            self._rows += len(array)
            self._bytes += array.nbytes
            self._meter.advance_to(self._bytes)
            yield array, rows_before
            self._next = next(self._arrays, None)

    def _read(self) -> Iterator["pa.Array"]:
        name, text_field = self._file.name, self._file.text_field
        for table in _each(self._file.dataset.with_format("arrow").iter(ROWS_AT_ONCE), name):
            column_named(table.schema, text_field, name)
            for array in table.column(text_field).chunks:
                for start in range(0, len(array), _ROWS_BETWEEN_CUTS):
                    yield array[start : start + _ROWS_BETWEEN_CUTS]


def _each(tables: Iterator["pa.Table"], given: str) -> Iterator["pa.Table"]:
    while True:
        with _one_line(given):
            table = next(tables, None)
        if table is None:
            return
        yield table


@contextmanager
def _one_line(given: str) -> Iterator[None]:
    """What goes wrong inside `datasets` as one line that names the dataset."""
    try:
        yield
    # It passes on whatever the dozen libraries below it raise, and wraps some of that in errors that say nothing.
    except Exception as error:
        reason = error.__cause__ or error if type(error).__name__ == "DatasetGenerationError" else error
        text = printable(" ".join(str(reason).split()))
        if isinstance(error, FileNotFoundError | ConnectionError):
            raise FileNotFoundError(
                f"'{given}' cannot be found or reached: {text}. hf:NAME:CONFIG:SPLIT is a dataset of the hub or a folder; "
                "without a network, load it once on a machine that has one"
            ) from error
        raise ValueError(f"'{given}' cannot be read: {text}. Give hf:NAME:CONFIG:SPLIT; CONFIG may be empty") from error
