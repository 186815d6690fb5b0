"""What is exported: one file for one runtime. The seam between the command and the formats.

A format is a function `Request -> Variants`: `export_onnx`, `export_executorch` and `export_litert`, in modules named
`onnx_export` and so on. It writes its files below `Request.folder` and says how each is loaded. Nothing here knows a format.
Shapes: B inputs, L tokens, V vocabulary, C outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporting.plain import PlainModel

Batch = Mapping[str, np.ndarray]
"""`PlainModel.input_names` -> (B, L) int64, padded on the right with attention_mask 0."""
Outputs = tuple[np.ndarray, ...]
"""In the order of `PlainModel.output_names`, float32: (B, L, V), (B, C), or (B, L) twice."""
Run = Callable[[Batch], Outputs]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One file, and how it is run."""

    name: str
    """For people and tables: "onnx int8"."""
    format: str
    """hf, onnx, executorch or litert."""
    precision: str
    """fp32, fp16, int8 or int8_static."""
    file: str
    """Below the export's folder, with slashes: "onnx/model_int8.onnx"."""
    runtime: str
    """Package and version that ran it here: "onnxruntime 1.32.0"."""
    load: Callable[[Path, int], Run]
    """(the export's folder, threads; 0 for the runtime's default) -> the file, loaded from the disk, ready to run.

    The folder is given anew because the export is written under another name than it gets at its end.
    """
    beside: tuple[str, ...] = ()
    """Other files that it cannot be run without, such as external weights: they count in its size."""
    remark: str = ""
    """What a user has to know of it, a sentence: how it was calibrated, what was left in fp32."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a format is asked for."""

    plain: PlainModel
    """fp32, evaluation mode, CPU. Not to be changed: other formats export it too."""
    folder: Path
    """The export's; files go below it, where `Variant.file` says. Its config.json and tokenizer are there already."""
    precisions: tuple[str, ...]
    """Of --variants; those that a format does not have are left out by it, without a word."""
    max_length: int
    """Tokens of the longest input."""
    pad_id: int
    calibration: Sequence[Batch]
    """Inputs as they come in use, B = 1 and unpadded: for quantization and as examples to trace with. Never empty."""
    calibration_source: str
    """What those are, for `Variant.remark`."""
    opset: int
    """Of --opset; only ONNX has one."""


Exporter = Callable[[Request], list[Variant]]
"""Errors: ValueError for what is not supported (an opset, a model), MissingPackageError, OSError."""


def write_variant(
    request: Request,
    data: bytes,
    *,
    format: str,
    precision: str,
    file: str,
    runtime: str,
    load: Callable[[Path, int], Run],
    remark: str,
) -> Variant:
    """One file of a format; `load` opens it by its path, with so many threads. Errors: OSError."""
    path = request.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Variant(
        name=f"{format} {precision}",
        format=format,
        precision=precision,
        file=file,
        runtime=runtime,
        load=lambda folder, threads: load(folder / file, threads),
        remark=remark,
    )


class MissingPackageError(ValueError):
    """A format's package is not installed. The message names the command that installs it."""


def total_bytes(variant: Variant, folder: Path) -> int:
    """Of all files that it needs to run, without configuration and tokenizer."""
    return sum((folder / name).stat().st_size for name in (variant.file, *variant.beside))


def pad(inputs: Sequence[Batch], pad_id: int, length: int = 0) -> Batch:
    """Inputs with B = 1 -> one batch, as long as its longest, or `length`."""
    length = length or max(one["input_ids"].shape[1] for one in inputs)
    fills = {"input_ids": pad_id}
    return {
        name: np.concatenate(
            [
                np.pad(one[name], ((0, 0), (0, length - one[name].shape[1])), constant_values=fills.get(name, 0))
                for one in inputs
            ]
        )
        for name in inputs[0]
    }


TEACHER = "teacher"
"""The teacher's name among the figures; it is no variant."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What exporting/measure.py says of a variant: `measure(variants, source, config, folder)` -> by `Variant.name`.

    The first variant is the fp32 PyTorch model, which the others are compared with. With --teacher there is `TEACHER`, too.
    """

    metric: str = ""
    """The task's headline, or "masked words" (accuracy) of a masked LM; empty where there was no data."""
    score: float = float("nan")
    """A fraction."""
    drop: float = float("nan")
    """100 x (score of the first variant, which is the fp32 PyTorch model, - score); nan without data."""
    examples: int = 0
    """The score is of so many."""
    latency_ms: float = float("nan")
    """Median of one input at batch 1 on one thread."""
    speedup: float = float("nan")
    """Against the --teacher in eager fp32 PyTorch, in the same run; nan without one."""
