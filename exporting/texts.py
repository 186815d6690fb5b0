"""The texts that an export is measured, calibrated and checked on: the user's, or a few of ours where there are none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data.sources import BadRecord, SourceOptions, plan_inputs
from evaluation.examples import Example
from evaluation.task_data import read_split, source_of
from evaluation.tasks import Task
from exporting.config import ExportConfig
from exporting.passages import EVERYTHING, QUESTIONS, SENTENCES, UNICODE, WORD
from exporting.source import Head, Source
from exporting.variant import Batch
from finetuning.features import subset
from finetuning.spans import MAX_QUESTION

PART_BYTES = 1 << 24
MOST_DOCUMENTS = 20_000
"""Read of a text source; the texts that are used are spread over these."""
CALIBRATION_TEXTS = 100
MEASURED_TEXTS = 500
"""Of held-out text a masked LM is measured on, unless --examples says otherwise."""

Item = TypeVar("Item")
Texts = Sequence[tuple[str, ...]]
"""One text each, or a pair in the order in which the model reads them."""


def read_documents(given: str, count: int) -> list[str]:
    """So many documents (all for 0) of whatever data.prepare reads, spread evenly. Errors: FileNotFoundError, ValueError."""
    if Path(f"{given}.idx").is_file():
        raise ValueError(f"{given} is a prepared corpus. Give the text that it was prepared from")
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


def spread(items: list[Item], count: int) -> list[Item]:
    """So many of them, evenly (all for 0)."""
    if not count or count >= len(items):
        return items
    return [items[row * len(items) // count] for row in range(count)]


def tokenized(source: Source, texts: tuple[str, ...]) -> Any:
    """The tokenizer's encoding of one text or pair, as long as the source reads at most; of spans the context is cut."""
    if source.head is Head.SPAN:
        return source.tokenizer(*texts, truncation="only_second", max_length=source.max_length)
    return source.tokenizer(*texts, truncation=True, max_length=source.max_length)


def encode(source: Source, texts: tuple[str, ...]) -> Batch:
    """One text or pair -> what the model reads, B = 1."""
    encoded = tokenized(source, texts)
    return {name: np.array([encoded[name]], dtype=np.int64) for name in source.input_names}


def golden_texts(source: Source, data: str, count: int) -> tuple[list[tuple[str, ...]], str]:
    """Texts for golden inputs, and where they are from; always a long one, an odd one and a single word among them.

    Errors: those of reading --data.
    """
    special = _special(source)
    wanted = count - len(special)
    texts, origin = _in_use(source, data, wanted, is_training=False)
    if len(texts) < wanted:
        texts = [*texts, *_ours(source, wanted - len(texts))]
        origin = f"{origin}, and texts of distillery's own"
    return [*texts, *special], origin


def calibration_texts(source: Source, config: ExportConfig) -> tuple[list[tuple[str, ...]], str]:
    """Texts like those of use, and where they are from. Errors: those of reading --calibration or --data."""
    if not config.calibration:
        if source.head is Head.MASKED_LM and config.data:
            documents, origin = _not_measured(config)
            return _of_varied_length(spread(documents, CALIBRATION_TEXTS)), origin
        try:
            return _in_use(source, config.data, CALIBRATION_TEXTS, is_training=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}. ONNX in 8 bit is calibrated on training examples: give --calibration TEXT, or leave int8 and "
                "int8_static out of --variants"
            ) from None
    documents = read_documents(config.calibration, 0)
    if text_columns(source) == 1:
        texts = spread(documents, CALIBRATION_TEXTS)
        is_task = source.head is not Head.MASKED_LM
        return [(text,) for text in texts] if is_task else _of_varied_length(texts), config.calibration
    if len(documents) < 2:
        raise ValueError(f"--calibration {config.calibration}: one text, but the task reads pairs. Give more documents")
    pairs: list[tuple[str, ...]] = [*zip(documents[::2], documents[1::2], strict=False)]  # neighbours are a pair
    return spread(pairs, CALIBRATION_TEXTS), f"pairs of {config.calibration}"


def _not_measured(config: ExportConfig) -> tuple[list[str], str]:
    """Documents of --data that accuracy is not measured on, or all where there are too few of those; and what they are."""
    documents = read_documents(config.data, 0)
    measured = set(spread(documents, config.examples or MEASURED_TEXTS))
    others = [document for document in documents if document not in measured]
    if len(others) < CALIBRATION_TEXTS:
        return documents, f"{config.data}, on which accuracy is measured, too"
    return others, config.data


def _of_varied_length(documents: Sequence[str]) -> list[tuple[str, ...]]:
    """The first 5 to 99 words of each: whole documents would all be cut at the longest input."""
    return [(" ".join(text.split()[: 5 + (7 * row) % 95]),) for row, text in enumerate(documents)]


def text_columns(source: Source) -> int:
    """1 where the model reads single texts, 2 for pairs."""
    return 1 if source.task is None else len(source.task.text_columns)


def _in_use(source: Source, data: str, count: int, *, is_training: bool) -> tuple[list[tuple[str, ...]], str]:
    if not data:
        return _ours(source, count), "texts of distillery's own, since no --data was given"
    if source.head is Head.MASKED_LM:
        return _of_varied_length(read_documents(data, count)), data
    assert source.task is not None, "measuring asks for the task first"
    task = source.task
    split = "train" if is_training else task.dev_splits[0]
    examples = subset(read_split(task, split, source_of(task, data)).examples, count, shuffled=False)
    texts = [example.texts for example in examples]
    if source.head is Head.SPAN:
        texts = [(_shortened(source, question), context) for question, context in texts]
    return texts, f"{task.title}, {split}, of {data}"


def _shortened(source: Source, question: str) -> str:
    offsets = source.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return question if len(offsets) <= MAX_QUESTION else question[: offsets[MAX_QUESTION - 1][1]]


def _ours(source: Source, count: int) -> list[tuple[str, ...]]:
    if source.head is Head.SPAN:
        texts: list[tuple[str, ...]] = list(QUESTIONS)
    elif text_columns(source) == 2:
        texts = [(SENTENCES[row], SENTENCES[(row + 1 + row % 3) % len(SENTENCES)]) for row in range(len(SENTENCES))]
    else:
        texts = [(sentence,) for sentence in SENTENCES]
    return texts[:count]


def _special(source: Source) -> list[tuple[str, ...]]:
    """A long one, an odd one, a single word."""
    repeats = 1 + 10 * source.max_length // len(EVERYTHING)  # few words have more than 10 characters
    long = " ".join([EVERYTHING] * repeats)
    if source.head is Head.SPAN:
        return [("What must be measured?", long), ("Quelle ville — où?", UNICODE), ("Who?", WORD)]
    if text_columns(source) == 2:
        return [(SENTENCES[0], long), (UNICODE, SENTENCES[1]), (WORD, WORD)]
    return [(long,), (UNICODE,), (WORD,)]
