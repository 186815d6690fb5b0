"""How well a variant does the task: on its dev split, or, for a masked LM, on masked words of held-out text.

Every input is read alone and unpadded, as in use: an int8 variant that finds its own ranges would find others in a batch.
Shapes: B inputs of a batch, L tokens, V vocabulary, M masked words of a text.
"""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from data.masking import Masker, smoothed_weights
from evaluation.examples import Example
from evaluation.results import SplitUsed
from evaluation.tasks import Kind, Task
from exporting.source import Source
from exporting.texts import MEASURED_TEXTS, encode, read_dev, read_documents
from exporting.variant import Batch, Run
from finetuning.material import Part, collator_of, make_inputs
from finetuning.scoring import score_split

MASKED_WORDS = "masked words"
"""The metric of a masked LM: its share of masked words that the model puts first."""
TEXT_LENGTH = 128
"""Tokens of a held-out text at most, as in evaluation.compare."""
PROBABILITY, SMOOTHING, SEED = 0.15, 0.7, 0
"""Of the masks, as in evaluation.compare."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one variant."""

    value: float
    """A fraction."""
    loss: float = float("nan")
    """Nats for each masked word, of a masked LM."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What every variant is asked."""

    metric: str
    examples: int
    score: Callable[[Run], Score]


def examination(source: Source, data: str, examples: int) -> Examination:
    """Errors: those of reading `data`; ValueError where no text in it is long enough to mask."""
    if source.task is None:
        return _masked_words(source, read_documents(data, examples or MEASURED_TEXTS))
    return task_examination(source.task, read_dev(source.task, data, examples), source)


def task_examination(task: Task, examples: Sequence[Example], source: Source) -> Examination:
    """With the source's tokenizer and length."""
    used = SplitUsed(files=(), examples=len(examples), of=len(examples))
    part = Part(list(examples), used, digest="", skipped=())
    inputs = make_inputs(task, examples, source.tokenizer, source.input_names, source.max_length, is_train=False)

    def score(run: Run) -> Score:
        with tempfile.TemporaryDirectory() as folder:
            model = OneByOne(run, task.kind)
            found = score_split(model, task, "dev", part, inputs, collator_of(source.tokenizer), None, Path(folder))
        return Score(value=found.scores[task.headline])

    return Examination(metric=task.headline, examples=len(examples), score=score)


class OneByOne(nn.Module):
    """A `Run` that is called as finetuning.predicting calls models, and reads each input of a batch alone."""

    def __init__(self, run: Run, kind: Kind) -> None:
        super().__init__()
        self.run, self.kind = run, kind
        self.device_of = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, **batch: Tensor) -> SimpleNamespace:
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        longest = batch["input_ids"].shape[1]
        found = []
        for row, length in enumerate(lengths):
            found.append(self.run({name: value[row : row + 1, :length].numpy() for name, value in batch.items()}))
        if self.kind is not Kind.SPAN:
            return SimpleNamespace(logits=torch.from_numpy(np.concatenate([logits for (logits,) in found])))
        start, end = (
            np.stack([np.pad(row[0], (0, longest - len(row[0]))) for row in rows]) for rows in zip(*found, strict=True)
        )
        return SimpleNamespace(start_logits=torch.from_numpy(start), end_logits=torch.from_numpy(end))


def _masked_words(source: Source, texts: Sequence[str]) -> Examination:
    masked = mask_texts(source, texts)

    def score(run: Run) -> Score:
        right, loss, total = 0, 0.0, 0
        for batch, positions, labels in masked:
            (logits,) = run(batch)
            likely = log_softmax(logits[0, positions].astype(np.float64), axis=-1)  # (M, V)
            right += int((likely.argmax(axis=1) == labels).sum())
            loss -= float(likely[np.arange(len(labels)), labels].sum())
            total += len(labels)
        return Score(value=right / total, loss=loss / total)

    return Examination(metric=MASKED_WORDS, examples=len(masked), score=score)


def mask_texts(source: Source, texts: Sequence[str]) -> list[tuple[Batch, np.ndarray, np.ndarray]]:
    """Of each text its beginning with fixed masks, (1, L); masked positions (M,); their true tokens (M,)."""
    limit = min(TEXT_LENGTH, source.max_length)
    ids = [encode(source, (text,))["input_ids"][0] for text in texts]
    ids = [np.concatenate([row[: limit - 1], row[-1:]]) for row in ids if len(row) > 2]  # the last one is [SEP]
    if not ids:
        raise ValueError("no text of --data has a word to mask")
    tokenizer, tokens = source.tokenizer, np.concatenate(ids)
    special = np.isin(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    weights = smoothed_weights(np.bincount(tokens, minlength=len(tokenizer)), SMOOTHING)
    masker = Masker(SEED, PROBABILITY, weights, special, tokenizer.mask_token_id)
    ends = np.cumsum([0, *map(len, ids)])
    corrupted, positions, labels = masker(tokens, ends, np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64))
    found: list[tuple[Batch, np.ndarray, np.ndarray]] = []
    for first, behind in itertools.pairwise(ends):
        row, inside = corrupted[None, first:behind], (positions >= first) & (positions < behind)
        columns = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        found.append(({name: columns[name] for name in source.input_names}, positions[inside] - first, labels[inside]))
    return found
