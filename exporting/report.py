"""What an export holds and what was refused: export.json for programs, EXPORT.md for people."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.sections import table
from exporting.golden import Recorded
from exporting.hugging_face import Equality
from exporting.source import Source
from exporting.variant import Figures, Variant
from folders import Product
from model.config import read_json

FILE = "export.json"
VERSION = 1
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant and all that was found of it."""

    variant: Variant
    bytes: int
    sha256: str
    """Of its file; not of what lies beside."""
    recorded: Recorded
    figures: Figures
    refused: str = ""
    """Why it was not kept; empty where it was."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """An export."""

    source: Source
    rows: Sequence[Row]
    """The fp32 PyTorch model first."""
    equality: Equality
    golden_inputs: int
    golden_from: str
    calibrated_on: str
    measured_on: str
    """--data; empty where nothing was measured."""
    max_drop: float
    teacher: str
    teacher_figures: Figures | None
    hardware: str
    versions: Mapping[str, str]

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if not row.refused]

    @property
    def refused(self) -> list[Row]:
        return [row for row in self.rows if row.refused]

    def as_json(self) -> dict[str, Any]:
        """For `evaluation.results.write_json`, which writes nan as null."""
        source = self.source
        return {
            "version": VERSION,
            "input": source.given,
            "weights": source.digest,
            "task": source.task.name if source.task is not None else source.head.value,
            "kind": source.head.value,
            "labels": list(source.labels),
            "model_type": source.model.config.model_type,
            "parameters": source.sizes.parameters,
            "max_length": source.max_length,
            "measured_on": self.measured_on,
            "max_drop": self.max_drop,
            "golden": {"inputs": self.golden_inputs, "from": self.golden_from},
            "calibrated_on": self.calibrated_on,
            "equality": asdict(self.equality),
            "teacher": None
            if self.teacher_figures is None
            else {"model": self.teacher, **_figures_json(self.teacher_figures)},
            "variants": [_row_json(row) for row in self.kept],
            "refused": [_row_json(row) | {"reason": row.refused} for row in self.refused],
            "hardware": self.hardware,
            "versions": dict(self.versions),
        }

    def as_markdown(self) -> str:
        """EXPORT.md."""
        source = self.source
        lines = [
            f"# {source.given}, exported",
            "",
            *self.variants_table(),
            "",
            f"Size: all files that a variant needs, without configuration and tokenizer. {self._measured()}",
            f"Golden: of {self.golden_inputs} inputs ({self.golden_from}), how many have the fp32 PyTorch model's answer, "
            "and the largest difference between logits. `python check.py` repeats this anywhere.",
            f"Logits of the folder loaded again differ by {self.equality.folder:.1g}, those of the exported graph by "
            f"{self.equality.plain:.1g}, on {self.equality.inputs} inputs of {self.equality.tokens:,} tokens.",
            f"Measured with {', '.join(f'{name} {version}' for name, version in self.versions.items())} on {self.hardware}.",
        ]
        if self.refused:
            lines += ["", "Not kept:", "", *(f"- {row.variant.file}: {row.refused}" for row in self.refused)]
        remarks = [f"- {row.variant.file}: {row.variant.remark}" for row in self.kept if row.variant.remark]
        return "\n".join([*lines, *(["", "Remarks:", "", *remarks] if remarks else [])]) + "\n"

    def variants_table(self) -> list[str]:
        """Lines of Markdown, a row for each variant that was kept, and the teacher's; columns of what was measured."""
        header = ["variant", "file", "MB", "golden answers", "largest difference"]
        rows = [
            [
                row.variant.name,
                row.variant.file,
                f"{row.bytes / MB:.1f}",
                f"{row.recorded.same_answers}/{self.golden_inputs}",
                f"{row.recorded.max_difference:.1g}",
            ]
            for row in self.kept
        ]
        figures = [row.figures for row in self.kept]
        if self.teacher_figures is not None:
            figures.append(self.teacher_figures)
            rows.append([f"teacher {self.teacher}", "", "", "", ""])
        metric = next((one.metric for one in figures if one.metric), "")
        columns = {
            metric: [number(100 * one.score, ".2f") for one in figures],
            "points lost": [number(one.drop, ".2f") for one in figures],
            "ms an input": [number(one.latency_ms, ".1f") for one in figures],
            "times the teacher's speed": [number(one.speedup, ".1f") for one in figures],
        }
        for name, values in columns.items():
            if any(values):
                header.append(name)
                rows = [[*row, value] for row, value in zip(rows, values, strict=True)]
        return table(header, rows)

    def _measured(self) -> str:
        examples = max(row.figures.examples for row in self.rows)
        accuracy = (
            f"Accuracy on {examples:,} examples of {self.measured_on}; one that loses more than {self.max_drop:g} points is "
            "not kept."
            if self.measured_on
            else "No --data was given, so accuracy is not measured."
        )
        return f"{accuracy} Milliseconds: median at batch 1 on one thread."


def _row_json(row: Row) -> dict[str, Any]:
    variant = row.variant
    return {
        "name": variant.name,
        "format": variant.format,
        "precision": variant.precision,
        "file": variant.file,
        "beside": list(variant.beside),
        "bytes": row.bytes,
        "sha256": row.sha256,
        "runtime": variant.runtime,
        **_figures_json(row.figures),
        "golden": asdict(row.recorded),
        "remark": variant.remark,
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    return asdict(figures)


def number(value: float, form: str) -> str:
    """Empty for nan."""
    return "" if math.isnan(value) else format(value, form)


def _is_export(folder: Path) -> bool:
    try:
        content = read_json(folder / FILE)
    except (OSError, ValueError):
        return False
    return {"version", "variants", "golden", "weights"} <= content.keys()


EXPORT = Product("export", _is_export)
"""What export.py writes."""
