"""What `evaluation.speed` measures, as flags. Nothing here imports torch, so that --help answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
