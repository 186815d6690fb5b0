"""What a smaller model gains: size, memory, latency and throughput of several models, measured in turns in one process.

    python -m evaluation.speed --models teacher=runs/teacher student=runs/a/student --data STS-B/dev.tsv
    python -m evaluation.speed --models bert-base distilbert --data STS-B/dev.tsv --tokenizer bert-base-uncased-vocab.txt
    python -m evaluation.speed --models bert-base distilbert --precisions fp32 --threads 1

Models are loaded and run as the users of such folders would, by transformers' AutoModel classes, each with the head that its
config.json names. The first model is what the others are compared with. On a GPU the same is measured there as well
(evaluation/speed_timing.py).
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What to measure, and on which texts."""

    models: tuple[str, ...]
    """Each as NAME=FOLDER or FOLDER: Hugging Face folders with any usual head; or the words bert-base and distilbert,
    those published shapes with random weights. All must share a vocabulary."""
    data: str = ""
    """Sentence pairs in the published format of STS-B (sts-dev.csv or dev.tsv): no header, 7 or 9 columns between tabs."""
    text: str = ""
    """Instead of --data: a text file with one text a line. Without either: synthetic lengths, as the table then says."""
    tokenizer: str = ""
    """Folder or vocabulary file that turns texts into tokens. Default: that of the first model's folder."""
    sentences: int = 256
    """Texts to measure on, spread evenly over the file; 0 takes all of them."""
    rounds: int = 5
    """Times that every model passes over the texts."""
    turn: int = 32
    """Texts that a model runs at batch 1 before it is the next one's turn. At a larger batch every batch is a turn."""
    batch_size: int = 32
    """Texts of a batch in the columns of throughput."""
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    """On the CPU. bf16: the weights themselves in bf16, not autocast. A GPU is measured in fp32 and fp16."""
    threads: tuple[int, ...] = (1, 0)
    """Threads on the CPU, a column each; 0 stands for all that torch would use."""
    append: str = ""
    """Markdown file to add the table to, with command, hardware and date."""
    json: str = ""
    """File for the figures, for programs to read."""

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("--models: name at least one model, for example --models bert-base distilbert")
        if self.data and self.text:
            raise ValueError(f"--data {self.data} --text {self.text}: give sentence pairs or lines of text, not both")
        for name in ("rounds", "turn", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if self.sentences < 0:
            raise ValueError(f"--sentences {self.sentences}: at least 1 is needed, or 0 for all")
        if not self.precisions or not self.threads or min(self.threads) < 0:
            raise ValueError(
                f"--precisions {' '.join(self.precisions)} --threads {' '.join(map(str, self.threads))}: at least one of "
                "each is needed, and no negative number of threads"
            )
        for name in ("append", "json"):
            path = getattr(self, name)
            if path and not Path(path).absolute().parent.is_dir():
                raise ValueError(f"--{name} {path}: there is no folder {Path(path).parent}. Create it first")


def main(config: SpeedConfig, command: str) -> int:
    """Exit code 2 and one line for input that does not fit."""
    from evaluation.speed_report import run  # torch comes with it, and --help has to answer at once

    try:
        report = run(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    section = report.markdown(command)
    print(section, end="")
    if config.append:
        path = Path(config.append)
        gap = "\n" if path.exists() and path.stat().st_size else ""
        with path.open("a", encoding="utf-8") as file:
            file.write(gap + section)
    if config.json:
        Path(config.json).write_text(report.as_json(command), encoding="utf-8")
    return 0


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    sys.exit(main(parse(SpeedConfig, ARGUMENTS, __doc__ or ""), f"python -m evaluation.speed {shlex.join(ARGUMENTS)}"))
