"""The one parser of every command: flags from frozen dataclasses, declared beside their owners.

The launcher, `data`, `evaluation` and the scripts all use it, so it belongs to none of them and imports none of them.
"""

import os
import sys
from collections.abc import Sequence
from typing import TypeVar

Config = TypeVar("Config")


def parse(config_type: type[Config], arguments: Sequence[str], description: str, prog: str | None = None) -> Config:
    """Flags -> a frozen dataclass. `--ds_config` and `--ds-config` are the same flag.

    A flag that does not parse, or a value that its dataclass refuses, ends the process with exit code 2 and one message,
    from rank 0 alone. Nothing heavy may be imported before: --help and a mistyped flag answer at once.
    """
    import tyro

    try:
        return tyro.cli(
            config_type,
            args=list(arguments),
            prog=prog,
            description=description,
            config=(tyro.conf.OmitArgPrefixes,),
            use_underscores=True,
            console_outputs=_is_first_rank(),
        )
    except ValueError as error:
        if _is_first_rank():
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"
