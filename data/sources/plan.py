"""The arguments of --input -> items of work: files, folders, globs and datasets, in the order in which they were given."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.sources.compression import COMPRESSIONS, split_compression
from data.sources.files import LINE_FORMATS, StoredFile, is_record_a_line, plan_lines
from data.sources.hub import dataset_of, plan_dataset
from data.sources.item import Item, Piece, grouped
from data.sources.options import SourceOptions
from data.sources.tables import TABLE_FORMATS, plan_table

# What Hugging Face's libraries keep beside the data.
_NO_CORPUS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def plan_inputs(
    inputs: Sequence[str],
    options: SourceOptions,
    part_bytes: int,
    notes: list[str] | None = None,
    files: list[str] | None = None,
) -> list[Item]:
    """Everything to read, in units of work: each about part_bytes of input, or several parts of that size.

    An input is a file, a folder (every known file below it, sorted by path), a glob, `hf:NAME[:CONFIG[:SPLIT]]`, or the
    folder of a dataset that was saved, `FOLDER[:SPLIT]`. The plan depends on the arguments alone. `notes` receives lines for
    the user, such as how many files of a folder are ignored, `files` the paths of all that is read.
    Errors: FileNotFoundError, ValueError; both name what was looked for.
    """
    assert part_bytes > 0
    options.check()
    if not inputs:
        raise ValueError("--input is empty. Give files, folders, globs or datasets")
    notes = [] if notes is None else notes
    plan: list[Piece | Item] = []
    times_given: Counter[str] = Counter()
    for given in inputs:
        dataset = dataset_of(given)
        if dataset is not None:
            plan += plan_dataset(dataset, options, part_bytes)
            continue
        paths = list(_files_of(given, notes))
        times_given.update(paths)
        if files is not None:
            files += paths
        for path in paths:
            plan += _plan_file(path, options.text_field, part_bytes)
    repeated = [path for path, times in times_given.items() if times > 1]
    if repeated:
        notes.append(
            f"{len(repeated):,} files are given more than once and read as often, the first is '{repeated[0]}'"
        )
    return grouped(plan, part_bytes)


def _plan_file(path: str, text_field: str, part_bytes: int) -> list[Piece | Item]:
    file = StoredFile.of(path)
    kind = _kind_of(path)
    assert kind is not None
    return (
        plan_table(file, text_field, part_bytes) if kind == "table" else plan_lines(file, kind, text_field, part_bytes)
    )


def _kind_of(path: str) -> str | None:
    """What a file of this name holds, None where that is unknown."""
    if path.endswith(TABLE_FORMATS):
        return "table"
    name, _ = split_compression(os.path.basename(path))
    if name.startswith("wiki_") and name[5:].isdecimal():
        return "wiki"
    return LINE_FORMATS.get(Path(name).suffix)


def _files_of(given: str, notes: list[str]) -> Iterator[str]:
    """The files that an argument stands for."""
    path = os.path.expanduser(given)
    if given == "-":
        raise ValueError(
            "'-' is standard input, which only one process can read, once. Write it to a file, and give that"
        )
    if os.path.isfile(path):
        _check_known(path)
        yield path
    elif os.path.isdir(path):
        yield from _readable(given, _walk(path), notes)
    elif glob.has_magic(path):
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise FileNotFoundError(f"no file matches '{given}' in {os.getcwd()}. ** stands for folders of any depth")
        files = (file for match in found for file in (_walk(match) if os.path.isdir(match) else [match]))
        yield from _readable(given, sorted(set(files)), notes)
    else:
        raise FileNotFoundError(
            f"no file, folder or saved dataset '{given}' (looked in {os.getcwd()}). A dataset of the hub is hf:NAME"
        )


def _walk(folder: str) -> list[str]:
    """Every file below a folder, sorted by path; hidden ones and what links lead back to are left out. Errors: OSError."""

    def refuse(error: OSError) -> None:
        raise error  # os.walk would leave the folder out

    files: list[str] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _readable(given: str, files: Sequence[str], notes: list[str]) -> Iterator[str]:
    """Those of the files that can be read; how many cannot is noted."""
    known = [path for path in files if os.path.basename(path) not in _NO_CORPUS and _kind_of(path) is not None]
    known = [path for path in known if not _is_prepared(path) and is_record_a_line(path)]
    if not known:
        raise ValueError(f"'{given}' has no file that can be read, of {len(files):,} files. {_KNOWN}")
    ignored = sorted(set(files) - set(known))
    if ignored:
        endings = Counter(os.path.splitext(path)[1] or os.path.basename(path) for path in ignored).most_common(5)
        listed = ", ".join(f"{number:,} {ending}" for ending, number in endings)
        notes.append(f"'{given}': {len(known):,} files are read, {len(ignored):,} are ignored ({listed})")
    yield from known


def _is_prepared(path: str) -> bool:
    """Whether a file belongs to a corpus that data.prepare wrote, or is writing: no text to read again."""
    if any(folder.endswith((".parts", ".tokenizer", ".cache")) for folder in Path(path).parts[:-1]):
        return True
    prefix = path.removesuffix(".json")
    return path.endswith(".bad.jsonl") or (prefix != path and os.path.exists(f"{prefix}.idx"))


_KNOWN = (
    f"{', '.join(LINE_FORMATS)} (also with {', '.join(COMPRESSIONS)}), {', '.join(TABLE_FORMATS)} and WikiExtractor's "
    "wiki_NN are read. Rename or convert what holds text"
)


def _check_known(path: str) -> None:
    if _kind_of(path) is None:
        raise ValueError(f"'{path}' has no known suffix. {_KNOWN}")
    if not is_record_a_line(path):
        raise ValueError(f"'{path}' is one JSON value, not a record a line. Convert it: jq -c '.[]' FILE > FILE.jsonl")
