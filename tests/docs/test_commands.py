"""Whoever copies a command from a page has flags, values, files and targets that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.command_lines import WrongCommandError, check
from tests.docs.pages import code_lines, pages, spans

COMMANDS = re.compile(
    r"^(\S+=\S+ )*(\$ )?(\.venv/bin/)?(python3? |\w+\.py --|torchrun |deepspeed |srun |sbatch |mpirun |make |launcher/)"
)
RECORDS = ("bench", "tests")
"""Folders whose pages tell what was once run."""


@pytest.mark.parametrize("page", [page for page in pages() if page.parts[0] not in RECORDS], ids=str)
def test_commands_of_pages_are_understood(page: Path) -> None:
    """Whole ones in blocks; mentions in the text where they are set as code."""
    wrong = []
    blocks = [(number, line, True) for number, line in code_lines(page)]
    mentions = [(number, code, False) for number, code in spans(page) if COMMANDS.match(code)]
    for number, line, is_whole in blocks + mentions:
        try:
            check(line, is_whole=is_whole)
        except WrongCommandError as error:
            wrong.append(f"{page}:{number}: {line.strip()}\n  {error}")
    assert not wrong, "\n".join(wrong)


GOOD = (
    "    $ deepspeed --num_gpus 8 train.py --ds_config ds_configs/zero2.json --data corpus/a:0.7 corpus/b:0.3",
    "torchrun --nproc_per_node 8 finetune.py --task sst2 --model runs/x/student  # a comment",
    "zstdcat d.zst | python -m data.prepare --input - --train_vocab 30000 --output corpus/d",
    "count=$(python -m evaluation.ablation --config FILE --count)",
    "sbatch --array=0-$((count - 1)) launcher/ablation.sbatch FILE",
    ". launcher/slurm.sbatch --ds_config ds_configs/zero2.json --temperature $t --output runs/t_$t",
    "python train.py --plan 64 --ds_config ds_configs/zero2.json ...",
    "TEXT='a/*.xz' launcher/recipes/distilroberta.sh --no_check_teacher",
    "make demo && make test",
    "python -m bench.checkpoint --folder DIR",
)
WRONG = {
    "python train.py --ds_config ds_configs/zero2.json --temprature 3": "--temperature",
    "python train.py --ds_config ds_configs/zero2.json --max_updates many": "--max_updates",
    "python train.py --data corpus/wiki": "--ds_config",
    "deepspeed train.py --ds_config ds_configs/zero4.json": "there is no ds_configs/zero4.json",
    "sbatch launcher/slrum.sbatch --ds_config ds_configs/zero2.json": "there is no launcher/slrum.sbatch",
    "python -m data.prepear --input a --output b": "there is no module data.prepear",
    "python -m data.prepare --input a --output b": "--tokenizer",
    "torchrun --nprocs_per_node 8 train.py --ds_config ds_configs/zero2.json": "torchrun",
    "srun python trian.py": "there is no trian.py",
    "python -m evaluation.compare --teacher A --students B": "--data",
    "make dmeo": "make dmeo",
    "python -m bench.checkpoint --directory DIR": "--directory",
    "python train.py --ds_config ds_configs/zero2.json --output 'runs/x": "no shell",
}


@pytest.mark.parametrize("line", GOOD)
def test_right_commands_are_found(line: str) -> None:
    assert check(line)


@pytest.mark.parametrize("line", WRONG)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises(WrongCommandError, match=re.escape(WRONG[line])):
        check(line)
