"""The texts that an export is measured, calibrated and checked on: the user's, or a few of ours where there are none."""

from collections.abc import Sequence

import numpy as np

from data.sources import BadRecord, SourceOptions, plan_inputs
from evaluation.examples import Example
from evaluation.task_data import read_split, source_of
from evaluation.tasks import Task
from exporting.config import ExportConfig
from exporting.source import Head, Source
from exporting.variant import Batch
from finetuning.features import subset

PART_BYTES = 1 << 24
MOST_DOCUMENTS = 20_000
"""Read of a text source; the texts that are used are spread over these."""
CALIBRATION_TEXTS = 100

Texts = Sequence[tuple[str, ...]]
"""One text each, or a pair in the order in which the model reads them."""


def read_documents(given: str, count: int) -> list[str]:
    """So many documents (all for 0) of whatever data.prepare reads, spread evenly. Errors: FileNotFoundError, ValueError."""
    found: list[str] = []
    for item in plan_inputs([given], SourceOptions(), PART_BYTES):
        for _, documents in item.parts(lambda _: True, lambda _: None):
            for document in documents or ():
                if not isinstance(document, BadRecord):
                    found.append(document)
                if len(found) == MOST_DOCUMENTS:
                    return spread(found, count)
    if not found:
        raise ValueError(f"{given}: no text in it. Give a file of documents")
    return spread(found, count)


def read_dev(task: Task, data: str, count: int) -> list[Example]:
    """So many examples (all for 0) of the task's first dev split, spread evenly. Errors: those of `read_split`."""
    return subset(read_split(task, task.dev_splits[0], source_of(task, data)).examples, count, shuffled=False)


def spread(texts: list[str], count: int) -> list[str]:
    if not count or count >= len(texts):
        return texts
    return [texts[row * len(texts) // count] for row in range(count)]


def encode(source: Source, texts: tuple[str, ...], max_length: int = 0) -> Batch:
    """One text or pair -> what the model reads, B = 1, cut at `max_length` (default: the source's)."""
    encoded = source.tokenizer(
        *texts,
        truncation="only_second" if source.head is Head.SPAN else True,
        max_length=max_length or source.max_length,
    )
    return {name: np.array([encoded[name]], dtype=np.int64) for name in source.input_names}


def golden_texts(source: Source, config: ExportConfig, count: int) -> tuple[list[tuple[str, ...]], str]:
    """Texts for golden inputs, and where they are from. Errors: those of reading --data."""
    raise NotImplementedError


def calibration_texts(source: Source, config: ExportConfig) -> tuple[list[tuple[str, ...]], str]:
    """Texts like those of use, and where they are from. Errors: those of reading --calibration or --data."""
    raise NotImplementedError
