"""Is what `evaluation.speed` reports what a user gets? Its figures beside the plainest loop over transformers, in one run.

    python -m bench.speed_plain
    python -m bench.speed_plain --models teacher=runs/teacher student=runs/a/student --data STS-B/dev.tsv

Batch 1, fp32, one thread. Both sides load the models for themselves, read the same token ids, and take turns over rounds.
They should agree within 5% where nothing else runs, since only who ran before and the bookkeeping differ.
"""

import os
import statistics
import sys
import time
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


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """What to measure."""

    models: tuple[str, ...] = ("bert-base", "distilbert")
    """As for evaluation.speed; folders must hold a masked-LM or a classification head."""
    data: str = ""
    """Sentence pairs as STS-B publishes them. Default: the synthetic lengths of evaluation.speed."""
    tokenizer: str = ""
    """Folder or vocabulary file. Default: that of the first model's folder."""
    sentences: int = 16
    """Texts to measure on."""
    rounds: int = 8
    """Turns of each side, which begins every other round."""


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
    ours: dict[str, list[float]] = {name: [] for name in sources}
    plain: dict[str, list[float]] = {name: [] for name in sources}
    load_before = os.getloadavg()[0]
    one_thread = [Setting("cpu", "fp32", 1, 1)]

    def measure_ours() -> None:
        [by_model] = measure(modules, ids, one_thread, rounds=1, turn=32, pad_id=pad_id).values()
        for name, [took] in by_model.items():
            ours[name].append(statistics.median(took))

    def measure_plain() -> None:
        with num_threads(1):
            for name, model in plain_models.items():
                plain_seconds(model, ids[:1])
                plain[name].append(statistics.median(plain_seconds(model, ids)))

    for number in range(config.rounds):
        for side in (measure_ours, measure_plain)[:: -1 if number % 2 else 1]:
            side()
    rows = []
    for name in sources:
        ratios = [mine / theirs for mine, theirs in zip(ours[name], plain[name], strict=True)]
        fastest = min(ours[name]) / min(plain[name])
        medians = [f"{1e3 * statistics.median(times[name]):.2f}" for times in (ours, plain)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        rows.append([name, *medians, spread, f"{fastest:.3f}"])
    print(f"{hardware()}. Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after. {len(ids)} texts.\n")
    print(
        "\n".join(
            table(
                ["model", "evaluation.speed ms", "plain loop ms", "ratio in a round", "ratio of the fastest rounds"],
                rows,
            )
        )
    )


if __name__ == "__main__":
    try:
        main(parse(PlainConfig, sys.argv[1:], __doc__ or ""))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
