"""What a pruning took away and what it cost: pruning.json for programs, PRUNING.md for people."""

import importlib.metadata
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.sections import hardware, table
from evaluation.speed_figures import Figure
from pruning.measuring import Figures
from pruning.trimming import Agreement
from pruning.yardstick import Scores

VERSION = 1
MB = 1e6
Heads = Mapping[int, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class HeadsPruned:
    """Which heads are gone, and why those."""

    share: float
    gone: Heads
    importance: Mapping[str, Mapping[str, float]]
    """By layer and head, of those that were there before."""
    examples: int
    """Inputs that importance was taken from."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A share of heads without which the model was measured, and put back."""

    share: float
    heads: Heads
    scores: Scores

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {shown(name, value)}" for name, value in self.scores.items())
        return f"without {self.share:.0%} of the heads: {figures}"


@dataclass(frozen=True, kw_only=True)
class VocabularyTrimmed:
    """How many tokens stay, and how texts are read with them."""

    sources: Sequence[str]
    seen: int
    before: int
    after: int
    sample: Agreement
    """Texts of the sources."""
    measured: Agreement
    """The texts that the model is measured on."""

    def __str__(self) -> str:
        return (
            f"vocabulary, from {self.before:,} to {self.after:,} tokens ({self.seen:,} occur in {' '.join(self.sources)}). "
            f"Texts from there: {self.sample}. Measured texts: {self.measured}"
        )


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """All of it."""

    command: str
    model: str
    task: str
    """Empty for a masked language model."""
    max_length: int
    measured: str
    layers: Sequence[int]
    """Of the model before, those that stay."""
    heads: HeadsPruned | None
    vocabulary: VocabularyTrimmed | None
    before: Figures
    after: Figures
    speed: Mapping[str, Figure]
    """By "before" and "after"; empty where none was taken."""
    tried: Sequence[Tried]
    difference: float
    """Largest, of logits, between transformers' model and the exported graph."""

    def content(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "hardware": hardware(),
            "torch": importlib.metadata.version("torch"),
            "transformers": importlib.metadata.version("transformers"),
            **asdict(self),
        }

    def markdown(self) -> str:
        content = self.content()
        lines = [
            f"# {self.model}, pruned",
            "",
            f"    {self.command}",
            "",
            f"{content['date'].replace('T', ' ')} on {content['hardware']}. torch {content['torch']}, transformers "
            f"{content['transformers']}. Measured: {self.measured}. Nothing was trained afterwards.",
            "",
            *table(*rows_of({"after": content})),
            "",
            *self._notes(),
        ]
        if self.tried:
            lines += ["", "Other shares of heads, with these layers and the whole vocabulary:", ""]
            lines += sweep_of(content["tried"])
        return "\n".join(lines) + "\n"

    def _notes(self) -> list[str]:
        notes = [f"- {EXPLAINED}"]
        if self.heads and self.heads.gone:
            by_layer = "; ".join(
                f"layer {layer}: {' '.join(map(str, gone))}" for layer, gone in self.heads.gone.items()
            )
            notes.append(f"- Heads gone, by their importance over {self.heads.examples:,} inputs: {by_layer}.")
        if len(self.layers) < self.before.layers:
            notes.append(f"- Layers that stay: {' '.join(map(str, self.layers))}.")
        if self.vocabulary:
            notes.append(f"- The {self.vocabulary}.")
        notes.append(f"- transformers and the exported graph: logits differ by at most {self.difference:.1e}.")
        return notes


EXPLAINED = (
    "Scores are in percent, a loss in nats; in brackets the difference to the model before. Parameters, MB (fp32 weights) "
    "and ms (median of an input at batch 1, fp32, one thread, models in turns; times as fast as before) are of the exported "
    "graph, in which pruned heads are not there. The Hugging Face folder keeps its shapes, with zeros in their place, and "
    "computes the same."
)


def rows_of(after: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: the model before, and each content of a pruning.json by its name, with differences."""
    first = next(iter(after.values()))
    names = list(first["before"]["scores"])
    header = ["model", "layers", "heads", "vocabulary", "parameters", "MB", *names, "ms", "speed"]
    rows: list[list[str]] = []
    shown_before: list[Any] = []
    for name, content in after.items():
        before = content["before"]
        if before not in shown_before:  # measured among other words than the one above
            label = "before" if not shown_before else f"before, as {name} is measured"
            rows.append(_row(label, before, content["speed"].get("before"), {}))
            shown_before.append(before)
        rows.append(_row(name, content["after"], content["speed"].get("after"), before["scores"]))
    return header, rows


def sweep_of(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table, of what a pruning.json says of --sweep."""
    names = list(tried[0]["scores"])
    rows = [[f"{one['share']:.0%}", *(shown(name, one["scores"][name]) for name in names)] for one in tried]
    return table(["heads gone", *names], rows)


def _row(name: str, figures: Mapping[str, Any], speed: Any, before: Scores) -> list[str]:
    values = [shown(metric, value, before.get(metric)) for metric, value in figures["scores"].items()]
    time_taken = speed if isinstance(speed, Mapping) else asdict(speed) if speed else None
    return [
        name,
        str(figures["layers"]),
        str(sum(figures["heads"])),
        f"{figures['vocab_size']:,}",
        f"{figures['parameters'] / 1e6:.2f} M",
        f"{figures['weights_bytes'] / MB:.1f}",
        *values,
        f"{time_taken['median']:.2f}" if time_taken else "",
        f"{time_taken['speed_up']:.2f}x" if time_taken else "",
    ]


def shown(metric: str, value: float | None, before: float | None = None) -> str:
    """Fractions in percent, a loss as it is; with its difference in points."""
    if value is None or math.isnan(value):
        return "undefined"
    is_loss = "loss" in metric
    figure = f"{value:.3f}" if is_loss else f"{100 * value:.1f}"
    if before is None or math.isnan(before):
        return figure
    return f"{figure} ({value - before:+.3f})" if is_loss else f"{figure} ({100 * (value - before):+.1f})"


def describe(report: Pruning) -> str:
    """For the end of the console: the table."""
    header, rows = rows_of({"after": report.content()})
    return "\n" + "\n".join(table(header, rows))
