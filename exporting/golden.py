"""golden.json: inputs with what the fp32 PyTorch model says of them, and the rule by which a backend is right.

check.py, which is copied into every export, and the web page have copies of the rule in words of their own.
Shapes: L tokens of an input, C outputs, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporting.source import Source
from exporting.variant import Outputs, Run

COUNT = 50
TOP_TOKENS = 20
"""Of a masked word, the likeliest ones are kept."""
FP32_TOLERANCE = 1e-4
NUMBER_TOLERANCE = 0.1
"""Two numbers of a regression are the same answer within this."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a variant was found to say when it was exported."""

    max_difference: float
    same_answers: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a variant says now, and whether that is what was exported."""

    max_difference: float
    same_answers: int
    is_right: bool
    reason: str
    """A sentence where it is not right."""


def make_golden(source: Source, texts: Sequence[tuple[str, ...]], run: Run) -> dict[str, Any]:
    """The content of golden.json, without variants. `texts`: COUNT of them."""
    raise NotImplementedError


def run_golden(golden: Mapping[str, Any], run: Run) -> list[Outputs]:
    """One after the other, at batch 1, unpadded."""
    raise NotImplementedError


def compare(golden: Mapping[str, Any], outputs: Sequence[Outputs]) -> Recorded:
    """How far outputs are from the golden ones, over all inputs; not finite counts as infinitely far."""
    raise NotImplementedError


def judge(golden: Mapping[str, Any], file: str, outputs: Sequence[Outputs]) -> Verdict:
    """By the export's own record of the variant in `file`; by FP32_TOLERANCE where there is none."""
    raise NotImplementedError


def read_golden(folder: Path) -> dict[str, Any]:
    """Errors: FileNotFoundError, ValueError."""
    raise NotImplementedError
