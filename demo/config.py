"""The flags of the page's commands."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["int8", "int8_static", "fp32"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Which models the page is to have."""

    student: str
    """Folder that export.py wrote, of a student fine-tuned on SQuAD."""
    output: str
    """Folder to write: files for any static web server. A site that is there is replaced, anything else refused."""
    teacher: str = ""
    """Folder that export.py wrote, of its teacher: the page then shows both answers, and how long each takes."""
    precision: Precision = "int8"
    """Which of the student's ONNX files."""
    teacher_precision: Precision = "int8"
    """Which of the teacher's."""

    def __post_init__(self) -> None:
        if not self.student or not self.output:
            raise ValueError("give --student EXPORT, a folder that export.py wrote, and --output SITE, where to")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve, on this machine alone."""

    site: str
    """Folder that demo.build wrote."""
    port: int = 8000
    """0 takes one that is free."""
