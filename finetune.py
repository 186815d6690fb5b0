"""Fine-tune a BERT, DistilBERT or RoBERTa folder on GLUE's tasks, IMDb or SQuAD 1.1; with --teacher, a second distillation.

    python finetune.py --model runs/wiki/student --task sst2 rte --data glue --output runs/finetune/student
    python finetune.py --model runs/wiki/student --task squad --teacher runs/finetune/teacher/squad/model --data squad
    python finetune.py --teacher runs/finetune/teacher/sst2/model --task sst2 --data glue
    torchrun --nproc_per_node 8 finetune.py --model bert-base-uncased --task mnli
    deepspeed --num_gpus 8 finetune.py --model bert-base-uncased --task mnli --ds_config ds_configs/finetune/zero2.json

Every cell of the published grid is run with every seed; the cell with the best median on dev is reported, all runs are
kept in OUTPUT/TASK/runs with their predictions. A run that is there is not run again. Exit codes: 0 finished, 2 bad input,
3 every run of a task diverged, 4 nothing can be written.
"""

import sys

from command_line import is_first_rank, parse
from finetuning.config import FinetuneConfig


def main(config: FinetuneConfig) -> int:
    from finetuning.command import finetune  # torch comes with it, and --help has to answer at once

    try:
        return finetune(config)
    except (ValueError, FileNotFoundError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 4)


def _fail(error: Exception, code: int) -> int:
    if is_first_rank():
        print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(parse(FinetuneConfig, sys.argv[1:], __doc__ or "")))
