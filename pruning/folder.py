"""The folder of a pruned model: staged beside its place, and there as a whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from data.tokenizer import TOKENIZER_FILES
from pruning.subject import PRUNING

_COPIED = [name for name in (*TOKENIZER_FILES, "added_tokens.json") if name != "config.json"]


def check_output(output: Path, source: Path) -> None:
    """Errors: ValueError for a place that holds something else than an earlier pruning."""
    if output.absolute() == source.absolute():
        raise ValueError(
            f"--output {output} is the folder of --model. Give another one: pruning leaves its model alone"
        )
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file. Give a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / PRUNING).is_file():
        raise ValueError(f"--output {output} holds something that prune.py did not write. Give a new folder")


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to write into, which takes the output's place at the end; after an error nothing is left of it."""
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """As it is. Errors: OSError."""
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
