"""The one parser of every command: flags from frozen dataclasses, declared beside their owners.

The launcher, `data`, `evaluation` and the scripts all use it, so it belongs to none of them and imports none of them.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import TypeVar

Config = TypeVar("Config")

_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""Set by torchrun and deepspeed, Open MPI, PMIx, MPICH and srun; the first that is there counts."""


def parse(config_type: type[Config], arguments: Sequence[str], description: str, prog: str | None = None) -> Config:
    """Flags -> a frozen dataclass. `--ds_config` and `--ds-config` are the same flag.

    A flag that does not parse, or a value that its dataclass refuses, ends the process with exit code 2 and one message,
    from rank 0 alone. Nothing heavy may be imported before: --help and a mistyped flag answer at once.
    """
    import tyro

    for noisy in ("torchao", "torch.utils._pytree"):  # where torchao is installed, transformers imports it
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        return tyro.cli(
            config_type,
            args=list(arguments),
            prog=prog,
            description=description,
            config=(tyro.conf.OmitArgPrefixes,),
            use_underscores=True,
            console_outputs=is_first_rank(),
        )
    except ValueError as error:
        if is_first_rank():
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def is_first_rank() -> bool:
    """Whether this process speaks for all that its launcher has started; also before the ranks have met."""
    # RANK alone may be that of a pod or node, in which this is the only process.
    known = [name for name in _RANKS if name in os.environ and (name != "RANK" or "LOCAL_RANK" in os.environ)]
    return not known or os.environ[known[0]] == "0"
