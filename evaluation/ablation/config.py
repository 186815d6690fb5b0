"""The flags of `python -m evaluation.ablation`. What is run is in the file that --config names (plan.py)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """Which ablation, and what to do with it. Without --list, --count and --table: run it, and print the table."""

    config: str
    """JSON file: flags of train.py, cells that differ in some of them, seeds. evaluation/ablation/paper.json is one."""
    cell: int | None = None
    """Run only the cell of this number, from 0, as --list numbers them: what a task of a SLURM array does."""
    list: bool = False
    """Print every cell with its number, seed, state and folder, and run nothing."""
    count: bool = False
    """Print the number of cells times seeds, and run nothing."""
    table: bool = False
    """Print the table of what is finished, and run nothing."""
    launcher: str = ""
    """What starts train.py, instead of the file's launcher, in one word of the shell: "torchrun --nproc_per_node 8"."""
    append: str = ""
    """Markdown file to add the table to, with command and date."""
    json: str = ""
    """File for the figures of the table, for programs to read."""

    def __post_init__(self) -> None:
        if self.list + self.count + self.table > 1:
            raise ValueError("--list, --count and --table are three things: ask for one")
        if self.cell is not None and (self.count or self.table):
            raise ValueError("--cell is about one cell, --count and --table about all: leave one of them out")
        if self.cell is not None and (self.append or self.json):
            raise ValueError("--cell prints no table: leave --append and --json out, or --cell")
        for name in ("append", "json"):
            path = getattr(self, name)
            if path and not Path(path).absolute().parent.is_dir():
                raise ValueError(f"--{name} {path}: there is no folder {Path(path).parent}. Create it first")
