"""The measurement of `evaluation.speed` as a whole, and its figures as Markdown and JSON."""

import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from data.tokenizer import load_tokenizer
from evaluation.sections import hardware, named, table
from evaluation.speed_config import SpeedConfig
from evaluation.speed_figures import Figure, summarize
from evaluation.speed_models import MB, PUBLISHED, LoadedModel, Memory, load, resident_memory
from evaluation.speed_texts import SYNTHETIC, Texts, encode, read_lines, read_pairs, spread, synthetic
from evaluation.speed_timing import Setting, measure, settings

NOTES = """\
Encoder: parameters as transformers' AutoModel counts them (embeddings, token types, layers and, for BERT and RoBERTa,
the pooler; no head). With head: of the class in the second column, a decoder tied to the embeddings counted once.
Weights: the files that transformers reads ("~": random weights, 4 bytes a parameter). Resident: of a process of its
own after the imports, after loading in fp32, and after one text; weights from safetensors are mapped and become
resident when they are first used, random ones at once. ms: median of a text at batch 1 (10th to 90th percentile),
each the median over rounds; +-: half the range of the rounds' medians. texts/s: padded batches of neighbours in the
file. x: how many times as fast as the first model, the median over rounds. Timed is the forward pass of the whole
model, head included, without tokenization, in inference mode; bf16 and fp16 are the weights' own precision, not
autocast. The models took turns in one process."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured, on what, where and when."""

    config: SpeedConfig
    models: dict[str, LoadedModel]
    memory: dict[str, Memory]
    texts: Texts
    figures: dict[Setting, dict[str, Figure]]
    loads: tuple[float, float]
    """Load average of the last minute, before and after."""

    def markdown(self, command: str) -> str:
        """A section with one table."""
        lengths = np.percentile(self.texts.lengths, (10, 50, 90))
        texts = f"{len(self.texts.ids):,} of the {self.texts.total:,} texts of {self.texts.name}"
        lines = [
            f"## {time.strftime('%Y-%m-%d %H:%M')}: size and speed, {' and '.join(self.models)}",
            "",
            f"    {command}",
            "",
            f"{hardware()}. torch {torch.__version__}, transformers {importlib.metadata.version('transformers')}. "
            f"Load average {self.loads[0]:.1f} before and {self.loads[1]:.1f} after. {texts}, {lengths[1]:.0f} tokens long "
            f"({lengths[0]:.0f} to {lengths[2]:.0f}), {self.config.rounds} rounds.",
            "",
            *table(["model", "class", *SIZE_COLUMNS, *map(heading, self.figures)], [self._row(n) for n in self.models]),
            "",
            *self._passes(),
            "",
            NOTES,
        ]
        classes = {head_of(model) for model in self.models.values()}
        if len(classes) > 1:
            lines.append(
                f"**The heads differ ({', '.join(sorted(classes))}), and each is a part of its model's time.**"
            )
        return "\n".join(lines) + "\n"

    def as_json(self, command: str) -> str:
        """The same figures, not rounded; a setting is an entry of the list `settings`."""
        content = {
            "command": command,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "hardware": hardware(),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
            "load_average": self.loads,
            "texts": {"name": self.texts.name, "total": self.texts.total, "lengths": self.texts.lengths},
            "rounds": self.config.rounds,
            "models": {
                name: {
                    "source": model.source,
                    "class": type(model.module).__name__,
                    **asdict(model.sizes),
                    "resident_bytes": asdict(self.memory[name]),
                }
                for name, model in self.models.items()
            },
            "settings": [
                {**way._asdict(), "unit": "ms" if way.batch_size == 1 else "texts/s"}
                | {"models": {name: asdict(figure) for name, figure in by_model.items()}}
                for way, by_model in self.figures.items()
            ],
        }
        return json.dumps(content, indent=2) + "\n"

    def _row(self, name: str) -> list[str]:
        model, memory = self.models[name], self.memory[name]
        sizes, first = model.sizes, next(iter(self.models.values())).sizes
        cells = [
            name,
            type(model.module).__name__,
            f"{sizes.encoder_parameters / 1e6:.1f} M, {sizes.encoder_parameters / first.encoder_parameters:.0%}",
            f"{sizes.parameters / 1e6:.1f} M",
            f"{'~' if sizes.folder_bytes is None else ''}{sizes.weights_bytes / MB:,.1f}",
            "" if sizes.folder_bytes is None else f"{sizes.folder_bytes / MB:,.1f}",
            " / ".join(f"{size / MB:,.0f}" for size in (memory.imported, memory.loaded, memory.ran)),
        ]
        for way, by_model in self.figures.items():
            f = by_model[name]
            half = (f.highest - f.lowest) / 2 / f.median
            tails = f" ({f.p10:.4g} to {f.p90:.4g})" if way.batch_size == 1 else ""
            cells.append(f"{f.median:.4g} +-{half:.0%}{tails}, {f.speed_up:.2f}x")
        return cells

    def _passes(self) -> list[str]:
        """The published table's figure: seconds of a pass over the whole file at batch 1."""
        return [
            f"- {way.label}: a pass over all {self.texts.total:,} texts at batch 1 takes "
            + ", ".join(f"{name} {figure.pass_seconds:,.1f} s" for name, figure in by_model.items())
            for way, by_model in self.figures.items()
            if way.batch_size == 1
        ]


SIZE_COLUMNS = ("encoder", "with head", "weights MB", "folder MB", "resident MB: imports / loaded / first text")


def run(config: SpeedConfig) -> Report:
    """All of it. Errors: ValueError or OSError for what does not fit together."""
    sources: dict[str, str] = {}
    for given in config.models:
        name, source = (given, given) if given in PUBLISHED else named(given)
        if name in sources:
            raise ValueError(f"--models {given}: there is a {name!r} already. Give each its own name: NAME=FOLDER")
        sources[name] = source
    models = {name: load(source) for name, source in sources.items()}
    texts = read_texts(config, models)
    memory = dict(zip(sources, resident_memory(list(sources.values())), strict=True))
    ways = settings(config.precisions, config.threads, config.batch_size)
    before = os.getloadavg()[0]
    seconds = measure(
        {name: model.module for name, model in models.items()},
        texts.ids,
        ways,
        rounds=config.rounds,
        turn=config.turn,
        pad_id=next(iter(models.values())).pad_id,
    )
    return Report(
        config=config,
        models=models,
        memory=memory,
        texts=texts,
        figures=summarize(seconds, len(texts.ids), texts.total),
        loads=(before, os.getloadavg()[0]),
    )


def read_texts(config: SpeedConfig, models: dict[str, LoadedModel]) -> Texts:
    """The texts that all models can run."""
    max_length = min(model.config.max_positions for model in models.values())
    vocab_size = min(model.config.vocab_size for model in models.values())
    if not (config.data or config.text):
        ids = synthetic(vocab_size, max_length)
        return Texts(name=SYNTHETIC, ids=[ids[i] for i in spread(len(ids), config.sentences)], total=len(ids))
    path = Path(config.data or config.text)
    read: Sequence[tuple[str, ...]] = read_pairs(path) if config.data else read_lines(path)
    if not read:
        raise ValueError(f"{path} has no sentences. Give a file with at least one")
    source = config.tokenizer or next(iter(models.values())).source
    if source in PUBLISHED or not Path(source).exists():
        raise ValueError(f"there is no tokenizer for {path} at {source!r}. Pass --tokenizer FOLDER, or a vocab.txt")
    tokenizer = load_tokenizer(source)
    for name, model in models.items():
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"{name} knows {model.config.vocab_size:,} tokens, the tokenizer {source} has {tokenizer.vocab_size:,}: "
                "compare models of one vocabulary, with its tokenizer in --tokenizer"
            )
    sample = [read[i] for i in spread(len(read), config.sentences)]
    return Texts(name=path.name, ids=encode(sample, tokenizer, max_length), total=len(read))


def heading(way: Setting) -> str:
    return f"{way.label}: {'ms' if way.batch_size == 1 else f'texts/s at {way.batch_size}'}"


def head_of(model: LoadedModel) -> str:
    """ForMaskedLM of BertForMaskedLM, for example."""
    return type(model.module).__name__.partition("For")[2] or "none"
