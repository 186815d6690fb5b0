"""The folder of a pruned model: what it is known by, and the tokenizer in it."""

import shutil
from pathlib import Path

from data.tokenizer import TOKENIZER_FILES
from folders import Product
from pruning.subject import PRUNING

PRUNED = Product("pruned model", lambda folder: (folder / PRUNING).is_file())
"""What prune.py writes."""
_COPIED = [name for name in (*TOKENIZER_FILES, "added_tokens.json") if name != "config.json"]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """As it is. Errors: OSError."""
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
