"""What `evaluation.report` reports on, as flags. Nothing here imports torch, so that --help answers at once."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which runs to report on, and what else is known of them."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, finished or going. Sentences are shown of the first distillation among them that has a student."""

    output: str = "runs/report"
    """Folder for report.html and report.md."""

    results: tuple[str, ...] = ()
    """Results of fine-tuning, each as NAME=FOLDER or FOLDER. The one named teacher, or the first, is what the others are
    compared with."""

    speed: str = ""
    """Figures of `evaluation.speed --json FILE`."""

    sentences: int = 20
    """Held-out sentences to show, those in which student and teacher differ most; 0 leaves them out."""

    sequences: int = 128
    """Held-out sequences to look for them in, spread evenly over the text. Time grows with them: without a GPU give fewer
    for large models."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run: name at least one run folder, for example python -m evaluation.report runs/wiki")
        if self.sentences < 0:
            raise ValueError(f"--sentences {self.sentences} cannot be negative: 0 leaves them out")
        if self.sequences < 1:
            raise ValueError(f"--sequences {self.sequences}: at least 1 is needed, 128 is usual")
        if self.speed and not Path(self.speed).is_file():
            raise ValueError(
                f"--speed {self.speed}: no such file. Write one with python -m evaluation.speed --json FILE"
            )
