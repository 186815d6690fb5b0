"""A corpus without a download: the English documentation strings of Python and of every installed package."""

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

HELDOUT_SHARE = 50
"""One file in so many is held out."""
SHORTEST = 40
"""Characters of a documentation string worth reading."""
ENOUGH = 25_000_000
"""Characters after which reading on would only cost time."""


def source_files() -> list[Path]:
    """Every .py file of the standard library and of the installed packages, in a fixed order."""
    paths = sysconfig.get_paths()
    roots = sorted({Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")})
    files = {file for root in roots for file in root.rglob("*.py")}
    venv_packages = Path(paths["purelib"]).resolve()
    # A virtual environment's standard library lies beside the packages of the Python it was made from: not ours.
    return sorted(f for f in files if "site-packages" not in f.parts or f.is_relative_to(venv_packages))


def documentation(path: Path) -> list[str]:
    """The documentation strings of a module, its classes and its functions; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarnings of other people's escapes
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return []
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, owners)]
    return [text for text in found if text and len(text) >= SHORTEST and text.isascii()]


def documents(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """One document a file: its strings in order, those seen in an earlier file left out."""
    seen: set[bytes] = set()
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        bar = tqdm(files, unit="file", desc="harvest", mininterval=1.0, disable=not sys.stderr.isatty())
        for path, strings in zip(bar, pool.imap(documentation, files, chunksize=32), strict=True):
            fresh = []
            for text in strings:
                key = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if key not in seen:
                    seen.add(key)
                    fresh.append(" ".join(text.split()))
            if fresh:
                yield path, "\n".join(fresh)


def harvest(folder: Path) -> tuple[int, int]:
    """Write FOLDER/train.jsonl and FOLDER/heldout.jsonl; returns documents and characters. Appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("train", "heldout")
    outputs = {name: (folder / f"{name}.jsonl.partial").open("w", encoding="utf-8") for name in names}
    num_documents = num_characters = 0
    for path, text in documents(source_files()):
        held_out = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % HELDOUT_SHARE == 0
        outputs["heldout" if held_out else "train"].write(json.dumps({"source": path.name, "text": text}) + "\n")
        num_documents, num_characters = num_documents + 1, num_characters + len(text)
        if num_characters >= ENOUGH:
            break
    for name, file in outputs.items():
        file.close()
        os.replace(file.name, folder / f"{name}.jsonl")
    return num_documents, num_characters


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m launcher.harvest", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("corpus/demo/text"), help="folder for train and heldout.jsonl"
    )
    num_documents, num_characters = harvest(parser.parse_args().output)
    print(f"harvested {num_documents:,} documents, {num_characters:,} characters")


if __name__ == "__main__":
    main()
