"""What `evaluation.table` compares, as flags. Nothing here imports torch, so that --help answers at once."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from evaluation.tasks import TASKS, task_named


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which models, on which tasks."""

    teacher: str
    """As NAME=FOLDER or FOLDER: a results folder of finetune.py (it holds TASK/result.json), or a Hugging Face model
    folder (it holds config.json), whose results are in --output/NAME."""
    student: tuple[str, ...]
    """Its students, as many as there are, each as for --teacher."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """The columns."""
    data: str = ""
    """Where the tasks' data is, as for finetune.py: what a model folder has no result of is fine-tuned on it. Without it
    nothing is trained."""
    output: str = "runs/table"
    """Results of model folders: a folder for each model, by its name."""
    finetune: str = ""
    """More flags for finetune.py, as one word with an equals sign: --finetune="--seeds 3 --epochs 1"."""
    paper: bool = False
    """Show the published rows of BERT-base and DistilBERT as well."""
    append: str = ""
    """Markdown file to add the table to, with command, hardware and date."""
    json: str = ""
    """File for the figures, for programs to read."""

    def __post_init__(self) -> None:
        if not self.student:
            raise ValueError("--student: name at least one student, for example --student runs/wiki/student")
        if not self.tasks:
            raise ValueError(f"--tasks: name at least one of {', '.join(TASKS)}")
        for task in self.tasks:
            try:
                task_named(task)
            except ValueError as error:
                raise ValueError(f"--tasks {task}: {error}") from None
        try:
            shlex.split(self.finetune)
        except ValueError as error:
            raise ValueError(f"--finetune {self.finetune!r}: {error}. Quote it as in a shell") from None
        if self.finetune and not self.data:
            raise ValueError(
                f"--finetune {self.finetune!r}: nothing is fine-tuned without --data. Give the tasks' data"
            )
        for name in ("append", "json"):
            path = getattr(self, name)
            if path and not Path(path).absolute().parent.is_dir():
                raise ValueError(f"--{name} {path}: there is no folder {Path(path).parent}. Create it first")
