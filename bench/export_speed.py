"""What an exported student gains: a BERT-base teacher and a DistilBERT in PyTorch beside the student's ONNX files, in turns.

    python -m bench.export_speed --data STS-B/sts-dev.csv --tokenizer bert-base-uncased-vocab.txt --append bench/RESULTS.md

Published shapes with random weights and a head of two outputs; batch 1, one core. PyTorch's models are transformers' own, in
fp32 and eager mode. The static file is calibrated on the texts that are measured, which costs or gains no time.
"""

import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class ExportSpeedConfig:
    """What to measure, and on which texts."""

    data: str = ""
    """Sentence pairs as STS-B publishes them (sts-dev.csv). Default: the synthetic lengths of evaluation.speed."""
    tokenizer: str = ""
    """Vocabulary file or folder for --data: BERT's, uncased."""
    sentences: int = 256
    """Texts to measure on, spread evenly over the file; 0 takes all of them."""
    rounds: int = 5
    """Times that every model reads all texts."""
    turn: int = 16
    """Texts that a model reads before it is the next one's turn."""
    calibration: int = 50
    """Of the texts, those that the static file is calibrated on."""
    opset: int = 20
    """Of ONNX's operators."""
    append: str = ""
    """Markdown file to add the table to."""

    def __post_init__(self) -> None:
        if self.data and not self.tokenizer:
            raise ValueError(f"--data {self.data}: give the --tokenizer that its texts are read with")
        for name in ("rounds", "turn", "calibration"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if self.sentences < 0:
            raise ValueError(f"--sentences {self.sentences}: at least 1 is needed, or 0 for all")


if __name__ == "__main__":  # before the heavy imports, so that --help answers at once
    ARGUMENTS = sys.argv[1:]
    CONFIG = parse(ExportSpeedConfig, ARGUMENTS, __doc__ or "")

import numpy as np
import torch
import transformers
from torch import nn

from evaluation.sections import append_section, hardware, table
from evaluation.speed_config import SpeedConfig
from evaluation.speed_figures import Figure
from evaluation.speed_models import load
from evaluation.speed_report import read_texts
from evaluation.speed_texts import Texts
from exporting.measure_speed import AsModule, time_models
from exporting.onnx_export import FILES, export_onnx
from exporting.onnx_session import RUNTIME
from exporting.plain import plain_model
from exporting.variant import Batch, Request, total_bytes

TEACHER, STUDENT = "BERT-base, PyTorch fp32", "DistilBERT, PyTorch fp32"
HEADER = (
    "",
    "MB",
    "ms a text: median (p10 to p90)",
    "rounds' medians",
    "times the teacher's speed",
    "times the student's",
)
MB = 1e6


def texts_of(config: ExportSpeedConfig) -> Texts:
    """Of BERT's vocabulary. Errors: ValueError, OSError."""
    speed = SpeedConfig(models=("bert-base",), data=config.data, tokenizer=config.tokenizer, sentences=config.sentences)
    return read_texts(speed, {"bert-base": load("bert-base")})


def build() -> dict[str, nn.Module]:
    """Teacher and student, with a head of two outputs."""
    torch.manual_seed(0)
    classes = transformers.AutoModelForSequenceClassification
    teacher = classes.from_config(transformers.BertConfig(num_labels=2), dtype=torch.float32)
    student = classes.from_config(transformers.DistilBertConfig(num_labels=2), dtype=torch.float32)
    return {TEACHER: teacher.eval(), STUDENT: student.eval()}


def export(
    student: nn.Module, texts: Texts, config: ExportSpeedConfig, folder: Path
) -> tuple[dict[str, nn.Module], dict]:
    """The student's files as models to time, and their bytes."""
    calibration: list[Batch] = []
    for number in range(min(config.calibration, len(texts.ids))):
        row = np.array([texts.ids[number * len(texts.ids) // config.calibration]], dtype=np.int64)
        calibration.append({"input_ids": row, "attention_mask": np.ones_like(row)})
    request = Request(
        plain=plain_model(student),
        folder=folder,
        precisions=tuple(FILES),
        max_length=student.config.max_position_embeddings,
        pad_id=0,
        calibration=calibration,
        calibration_source=texts.name,
        opset=config.opset,
    )
    variants = export_onnx(request)
    modules = {variant.name: AsModule(variant.load(folder, 1), request.plain.input_names) for variant in variants}
    return modules, {variant.name: total_bytes(variant, folder) for variant in variants}


def rows(figures: Mapping[str, Figure], sizes: Mapping[str, int]) -> list[list[str]]:
    student = figures[STUDENT]
    return [
        [
            name,
            f"{sizes[name] / MB:,.1f}",
            f"{one.median:.2f} ({one.p10:.2f} to {one.p90:.2f})",
            f"{one.lowest:.2f} to {one.highest:.2f}",
            f"{one.speed_up:.2f}",
            f"{student.median / one.median:.2f}",
        ]
        for name, one in figures.items()
    ]


def main(config: ExportSpeedConfig, command: str) -> None:
    texts, models = texts_of(config), build()
    sizes = {name: sum(p.nbytes for p in model.parameters()) for name, model in models.items()}
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        modules, bytes_of = export(models[STUDENT], texts, config, Path(folder))
        figures = time_models(models | modules, texts.ids, rounds=config.rounds, turn=config.turn)
    lengths = texts.lengths
    lines = [
        f"## An exported student, {date.today()}",
        "",
        f"`{command}`",
        "",
        f"{hardware()}; torch {torch.__version__}, transformers {transformers.__version__}, {RUNTIME}. Load average "
        f"{before:.1f} before, {os.getloadavg()[0]:.1f} after. {len(lengths)} texts of {texts.name}, {min(lengths)} to "
        f"{max(lengths)} tokens, median {statistics.median(lengths):g}; batch 1, one thread, {config.rounds} rounds in turns "
        f"of {config.turn} texts.",
        "",
        *table(HEADER, rows(figures, sizes | bytes_of)),
    ]
    section = "\n".join(lines) + "\n"
    print(section, end="")
    if config.append:
        append_section(Path(config.append), section)


if __name__ == "__main__":
    try:
        main(CONFIG, f"python -m bench.export_speed {shlex.join(ARGUMENTS)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
