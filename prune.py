"""Prune a finished student further, attention heads, layers or vocabulary, and say what that costs.

    python prune.py --model runs/wiki/student --data corpus/train-heldout --prune_heads 0.5 --output runs/pruned/heads
    python prune.py --model runs/finetune/student/sst2/model --data glue --prune_heads 0.5 --sweep 0 0.25 0.5 0.75 \\
      --output runs/pruned/sst2
    python prune.py --model runs/wiki/student --data corpus/train-heldout --layers 0 2 4 --output runs/pruned/layers
    python prune.py --model runs/wiki/student --data corpus/train-heldout --trim_vocab corpus/train --vocab_size 15000 \\
      --output runs/pruned/vocabulary

What is pruned together is pruned in this order: layers, heads, vocabulary. Nothing is trained: finetune.py --model OUTPUT
does that, and leaves pruned heads pruned. Exit codes: 0 finished, 2 bad input, 4 nothing can be written.
"""

import shlex
import sys

from command_line import parse
from pruning.config import PruneConfig


def main(config: PruneConfig, command: str) -> int:
    from pruning.command import prune  # torch comes with it, and --help has to answer at once

    try:
        prune(config, command)
    except (ValueError, FileNotFoundError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 4)
    return 0


def _fail(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    sys.exit(main(parse(PruneConfig, ARGUMENTS, __doc__ or ""), f"python prune.py {shlex.join(ARGUMENTS)}"))
