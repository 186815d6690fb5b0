"""Is what `evaluation.speed` reports what a user gets? Its figures beside the plainest loop over transformers, in one run.

    python -m bench.speed_plain
    python -m bench.speed_plain --models teacher=runs/teacher student=runs/a/student --data STS-B/dev.tsv

Batch 1, fp32, one thread. Both sides load the models for themselves, read the same token ids, and take turns at stretches
of a few texts. They should agree within 5%, since only who ran before and the bookkeeping differ.
"""

import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from command_line import parse
from evaluation.sections import hardware, named, table
from evaluation.speed_config import SpeedConfig
from evaluation.speed_models import load
from evaluation.speed_report import read_texts
from evaluation.speed_timing import Setting, measure, num_threads

STRETCH = 8
"""Texts that a side reads before it is the other's turn; a slow second then hits both."""


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """What to measure."""

    models: tuple[str, ...] = ("bert-base", "distilbert")
    """As for evaluation.speed; folders must hold a masked-LM or a classification head."""
    data: str = ""
    """Sentence pairs as STS-B publishes them. Default: the synthetic lengths of evaluation.speed."""
    tokenizer: str = ""
    """Folder or vocabulary file. Default: that of the first model's folder."""
    sentences: int = 64
    """Texts to measure on."""
    rounds: int = 4
    """Times that each side reads all texts."""


def plain_model(source: str) -> torch.nn.Module:
    """What a user would write; the words stand for the published shapes, as there."""
    if source == "bert-base":
        return BertForSequenceClassification(BertConfig(num_labels=1)).eval()
    if source == "distilbert":
        return DistilBertForSequenceClassification(DistilBertConfig(num_labels=1)).eval()
    loader = AutoModelForMaskedLM
    if type(load(source).module).__name__.endswith("ForSequenceClassification"):
        loader = AutoModelForSequenceClassification
    return loader.from_pretrained(source, dtype=torch.float32).eval()


@torch.no_grad()
def plain_seconds(model: torch.nn.Module, ids: list[list[int]]) -> list[float]:
    """Of each text."""
    seconds = []
    model(input_ids=torch.tensor(ids[:1]))  # the caches are full of another model's weights
    for text in ids:
        input_ids = torch.tensor([text])
        attention_mask = torch.ones_like(input_ids)
        started = time.perf_counter()
        model(input_ids=input_ids, attention_mask=attention_mask)
        seconds.append(time.perf_counter() - started)
    return seconds


def main(config: PlainConfig) -> None:
    speed = SpeedConfig(models=config.models, data=config.data, tokenizer=config.tokenizer, sentences=config.sentences)
    sources = dict(named(given) for given in config.models)
    models = {name: load(source) for name, source in sources.items()}
    plain_models = {name: plain_model(source) for name, source in sources.items()}
    ids = read_texts(speed, models).ids
    modules = {name: model.module for name, model in models.items()}
    pad_id = next(iter(models.values())).pad_id
    load_before = os.getloadavg()[0]
    stretches = [ids[start : start + STRETCH] for start in range(0, len(ids), STRETCH)] * config.rounds
    ours: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    for number, texts in enumerate(stretches):
        for side in ("ours", "plain")[:: -1 if number % 2 else 1]:
            if side == "ours":
                ours.append(our_seconds(modules, texts, pad_id))
            else:
                with num_threads(1):
                    plain.append(
                        {name: statistics.fmean(plain_seconds(model, texts)) for name, model in plain_models.items()}
                    )
    print(f"{hardware()}. Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after. {len(ids)} texts.\n")
    print("\n".join(table(HEADER, rows(ours, plain))))


def our_seconds(modules: Mapping[str, torch.nn.Module], texts: list[list[int]], pad_id: int) -> dict[str, float]:
    """Of a text, by model."""
    [by_model] = measure(modules, texts, [Setting("cpu", "fp32", 1, 1)], rounds=1, turn=STRETCH, pad_id=pad_id).values()
    return {name: statistics.fmean(took) for name, [took] in by_model.items()}


def rows(ours: list[dict[str, float]], plain: list[dict[str, float]]) -> list[list[str]]:
    """A row a model, and one for how many times as fast as the first each other is; medians over stretches."""
    found = []
    first = next(iter(ours[0]))
    for name in ours[0]:
        found.append(_row(name, [s[name] * 1e3 for s in ours], [s[name] * 1e3 for s in plain]))
    for name in list(ours[0])[1:]:
        found.append(
            _row(f"{name}, times as fast", [s[first] / s[name] for s in ours], [s[first] / s[name] for s in plain])
        )
    return found


def _row(name: str, ours: list[float], plain: list[float]) -> list[str]:
    ratios = sorted(mine / theirs for mine, theirs in zip(ours, plain, strict=True))
    quarter = len(ratios) // 4
    medians = statistics.median(ours), statistics.median(plain)
    return [
        name,
        *(f"{value:.2f}" for value in medians),
        f"{statistics.median(ratios):.3f} ({ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})",
        f"{medians[0] / medians[1]:.3f}",
    ]


HEADER = ["", "evaluation.speed, ms", "plain loop, ms", "ratio in a stretch (quartiles)", "ratio of the medians"]


if __name__ == "__main__":
    try:
        main(parse(PlainConfig, sys.argv[1:], __doc__ or ""))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
