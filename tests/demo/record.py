"""What the page takes on real models and real questions, in headless Chromium: one command, a table at its end.

    python -m tests.demo.record --student exports/student --teacher exports/teacher --data squad --append bench/RESULTS.md

The folders are export.py's; --data is SQuAD's folder or dev file. Answers are compared with Python's, from the same files.
In int8 a tie may fall otherwise on another processor; those are listed. Exit code 1 where answers differ without a tie, or
the first one takes longer than 2 seconds.
"""

import shlex
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What to measure, and on which questions."""

    student: str
    """Folder that export.py wrote."""
    data: str
    """SQuAD 1.1, as finetune.py's --data takes it."""
    teacher: str = ""
    """Folder that export.py wrote, to ask too."""
    precision: Literal["int8", "fp32"] = "int8"
    """Which of their files."""
    questions: int = 50
    """Of the dev set, spread evenly."""
    append: str = ""
    """Markdown file to add the table to."""


def main(config: RecordConfig, arguments: list[str]) -> int:
    from evaluation.sections import hardware
    from tests.demo.visits import NUM_WORDS, measure  # torch comes with it, and --help has to answer at once

    with tempfile.TemporaryDirectory() as folder:
        lines, is_right = measure(Path(folder), config)
    title = [
        f"## The page: {config.questions} questions of SQuAD's dev set, a text of {NUM_WORDS} words",
        "",
        f"`python -m tests.demo.record {shlex.join(arguments)}`, {date.today()}, {hardware()}, headless Chromium.",
        "",
    ]
    print("\n".join([*title, *lines]))
    if config.append:
        with Path(config.append).open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *title, *lines, ""]))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(parse(RecordConfig, sys.argv[1:], __doc__ or "", "python -m tests.demo.record"), sys.argv[1:]))
