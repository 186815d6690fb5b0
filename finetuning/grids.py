"""The hyperparameters that are tried: the published grids, one cell after the other."""

from dataclasses import dataclass, replace

from evaluation.results import Cell
from evaluation.tasks import IMDB, SQUAD, Grid, Task
from finetuning.config import BILSTM, FinetuneConfig

MAX_LENGTHS = {IMDB.name: 512, SQUAD.name: 384}
"""In tokens; GLUE's tasks have 128."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a family's grids have in common."""

    weight_decay: float
    warmup_share: float
    """Of all updates; afterwards the rate falls to 0 linearly."""
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    """Gradients are scaled down to it; 0: they are left alone."""


BERT = Recipe(weight_decay=0.01, warmup_share=0.1, adam_beta2=0.999, adam_epsilon=1e-6, max_grad_norm=1.0)
"""Devlin et al. 2019, appendices A.2 and A.3, and their code."""
ROBERTA = Recipe(weight_decay=0.1, warmup_share=0.06, adam_beta2=0.98, adam_epsilon=1e-6, max_grad_norm=0.0)
"""Liu et al. 2019, table 10, and their configurations of fine-tuning, which do not clip."""
ROBERTA_SQUAD = replace(ROBERTA, weight_decay=0.01)
"""The same table."""
COMPACT_GRID = Grid(
    batch_sizes=(8, 16, 32, 64, 128),
    learning_rates=(3e-4, 1e-4, 5e-5, 3e-5),
    epochs=(4,),
    source="Turc et al. 2019 (compact BERTs), for models narrower than BERT-base",
)
"""Of texts, not of SQuAD. BERT's own rates leave narrow models half trained (bench/RESULTS.md)."""
BASE_WIDTH = 768
BILSTM_GRID = Grid(
    batch_sizes=(32,), learning_rates=(1e-3,), epochs=(10,), source="ours; published ones are for other optimizers"
)


def is_roberta(model_type: str) -> bool:
    return model_type in ("roberta", "xlm-roberta")


def recipe_of(task: Task, model_type: str) -> Recipe:
    if not is_roberta(model_type):
        return BERT
    return ROBERTA_SQUAD if task is SQUAD else ROBERTA


def grid_of(task: Task, model_type: str, width: int) -> Grid:
    if model_type == BILSTM:
        return BILSTM_GRID
    if is_roberta(model_type):
        return task.grids[-1]
    return COMPACT_GRID if width < BASE_WIDTH and task is not SQUAD else task.grids[0]


def cells_of(config: FinetuneConfig, grid: Grid) -> list[Cell]:
    """All combinations, what the user named instead of what was published."""
    return [
        Cell(batch_size=batch_size, learning_rate=learning_rate, epochs=epochs)
        for batch_size in dict.fromkeys(config.batch_sizes or grid.batch_sizes)
        for learning_rate in dict.fromkeys(config.learning_rates or grid.learning_rates)
        for epochs in dict.fromkeys(config.epochs or grid.epochs)
    ]
