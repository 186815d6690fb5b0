"""What every part of the recipe is worth: students that differ in one thing, trained, scored and compared over seeds.

    python -m evaluation.ablation --config evaluation/ablation/paper.json           # every cell, one after the other
    python -m evaluation.ablation --config evaluation/ablation/paper.json --list    # cells, numbers, states
    python -m evaluation.ablation --config evaluation/ablation/paper.json --table   # of what is finished
    sbatch --array=0-$(( $(python -m evaluation.ablation --config FILE --count) - 1 )) launcher/ablation.sbatch FILE

Start it again at any time: finished cells are not run again, interrupted ones go on where they were. The file is described
in evaluation/ablation/plan.py. Exit codes: 0 all is finished, 1 a cell failed, 2 bad input, or a cell that another process
works on, 75 stopped, to be started again.
"""

import shlex
import sys
from pathlib import Path

from command_line import parse
from evaluation.ablation.config import AblationConfig


def main(config: AblationConfig, command: str) -> int:
    """Exit code 2 and one line for input that does not fit."""
    from evaluation.ablation.plan import read_plan  # --help has to answer at once

    try:
        plan = read_plan(Path(config.config), config.launcher)
        if config.count:
            print(plan.num_cells)
            return 0
        from evaluation.ablation.actions import list_cells, run, tabulate

        if config.list:
            return list_cells(plan, config.cell)
        if config.table:
            return tabulate(plan, config, command)
        return run(plan, config, command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    ARGUMENTS, PROG = sys.argv[1:], "python -m evaluation.ablation"
    sys.exit(main(parse(AblationConfig, ARGUMENTS, __doc__ or "", prog=PROG), f"{PROG} {shlex.join(ARGUMENTS)}"))
