"""The flags of export.py. Nothing here imports torch, so that --help answers at once."""

import math
from dataclasses import dataclass
from typing import Literal

HF = "hf"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, as what, and what it is measured on."""

    input: str
    """A run (its student is taken), a student's folder, or finetune.py's OUTPUT/TASK or OUTPUT/TASK/model."""
    output: str
    """Folder to write. One that is there is replaced if it is an export, and refused if it is anything else."""
    formats: tuple[Literal["hf", "onnx", "executorch", "litert"], ...] = ("hf", "onnx")
    """hf, a Hugging Face folder, is always written: the others are compared with it. executorch and litert, for phones, need
    packages that are installed apart: pip install executorch==1.5.1, pip install --no-deps -r requirements-litert.txt."""
    variants: tuple[Literal["fp32", "fp16", "int8", "int8_static"], ...] = ("fp32", "fp16", "int8", "int8_static")
    """Precisions of the other formats. ONNX has all four, ExecuTorch and LiteRT fp32 and int8."""
    data: str = ""
    """What accuracy is measured on: of a fine-tuned model its task's files, as finetune.py's --data takes them; of a masked
    LM held-out text (any file that data.prepare reads). Without it no accuracy is measured, and nothing is refused."""
    examples: int = 0
    """Measure on so many, spread evenly over the dev split; 0: all of a task, 500 texts of a masked LM."""
    calibration: str = ""
    """Text like that of later use, for ONNX's int8 and int8_static. Default: training examples of --data (of a
    masked LM those of its texts that are not measured on), else a few texts of ours."""
    teacher: str = ""
    """Folder or hub id of the teacher, to measure size and speed against."""
    max_drop: float = 1.0
    """Points (of 100) of the task's headline metric that a variant may lose; one that loses more is not kept."""
    opset: int = 20
    """Of ONNX's operators; 20 is the first that has GELU."""

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) != len(self.formats):
            raise ValueError(f"--formats {' '.join(self.formats)}: name at least one, each once")
        if not self.variants or len(set(self.variants)) != len(self.variants):
            raise ValueError(f"--variants {' '.join(self.variants)}: name at least one, each once")
        if self.examples < 0:
            raise ValueError(f"--examples {self.examples}: 0 for all, or a positive number")
        if not (self.max_drop >= 0 and math.isfinite(self.max_drop)):
            raise ValueError(f"--max_drop {self.max_drop}: points that may be lost, 0 or more")
        if not self.input or not self.output:
            raise ValueError("give --input FOLDER, what to export, and --output FOLDER, where to")
