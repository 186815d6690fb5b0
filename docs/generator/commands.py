"""The commands that have a page. A new one is a row here, and `python -m docs.generator` writes its page."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command."""

    words: str
    """How it is typed, before its flags."""
    source: str
    """The file that describes it in its docstring and hands its flags to `command_line.parse`."""

    @property
    def page(self) -> str:
        """Name of its page: train, data.prepare, ..."""
        return self.words.split()[-1].removesuffix(".py")


COMMANDS = (
    Command(words="python -m data.prepare", source="data/prepare.py"),
    Command(words="python -m data.inspect", source="data/inspect.py"),
    Command(words="python -m data.adopt", source="data/adopt.py"),
    Command(words="python -m launcher.doctor", source="launcher/doctor.py"),
    Command(words="python train.py", source="train.py"),
    Command(words="python finetune.py", source="finetune.py"),
    Command(words="python -m evaluation.compare", source="evaluation/compare.py"),
    Command(words="python -m evaluation.speed", source="evaluation/speed.py"),
    Command(words="python -m evaluation.table", source="evaluation/table.py"),
    Command(words="python -m evaluation.ablation", source="evaluation/ablation/__main__.py"),
    Command(words="python -m evaluation.report", source="evaluation/report/__main__.py"),
    Command(words="python prune.py", source="prune.py"),
    Command(words="python -m pruning.table", source="pruning/table.py"),
    Command(words="python export.py", source="export.py"),
    Command(words="python -m demo.build", source="demo/build.py"),
    Command(words="python -m demo.serve", source="demo/serve.py"),
)
"""In the order in which a student meets them."""
