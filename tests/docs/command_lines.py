"""Shell commands of pages: found, cut into words, and understood by the parser that would get them. Nothing is run.

Left out of a command: what starts it (mpirun, srun, sbatch, deepspeed and their options; torchrun's are parsed), values of
shell variables, and whatever stands for more flags, such as "...".
"""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from command_line import parse
from docs.generator.flags import groups, read
from tests.launch import ROOT

FOREIGN = {"tools/preprocess_data.py", "pretrain_gpt.py"}
"""Scripts of Megatron-LM."""
MADE = ("exports/", "runs/", "corpus/")
"""Folders that commands write."""
TAKES_TRAINS = {"launcher/slurm.sbatch", "launcher/rehearse.sh"}
"""Scripts whose arguments are train.py's flags."""
MORE = {"...", "…", "FLAGS"}
SEPARATORS = re.compile(r"^[|;&()]+$")
REDIRECTIONS = re.compile(r"^[<>]+$")
MAYBE = re.compile(
    r"python3? |(?<![\w./])\w+\.py\b|launcher/[\w/]+\.(sh|sbatch)\b|bench/\w+\.sh\b|^make |[;&|] *make |torchrun "
)
SHIPPED = (
    "ds_configs/",
    "launcher/",
    "bench/",
    "evaluation/",
    "finetuning/",
    "exporting/",
    "pruning/",
    "demo/",
    "tests/",
    "docs/",
)
"""Folders of the repository that nothing is written to but what --append names."""


class WrongCommandError(Exception):
    """What would be refused, and why."""


@dataclass(frozen=True)
class Program:
    """One of ours, with its arguments."""

    file: Path
    arguments: tuple[str, ...]


def check(line: str, *, is_whole: bool = True) -> list[str]:
    """The commands of ours in a line of shell, after they were found right. Errors: WrongCommandError.

    Of what only mentions a command (not `is_whole`), the names of flags are looked at alone.
    """
    checked = []
    for words in segments(line):
        check_files(words)
        if words[0] == "make":
            check_make(words[1:])
            checked.append(shlex.join(words))
        if "torchrun" in words:
            check_torchrun(words[words.index("torchrun") + 1 :])
        program = find_program(words)
        if program is not None:
            check_program(program, is_whole)
            checked.append(shlex.join(words))
    return checked


def segments(line: str) -> Iterator[list[str]]:
    """Words of each command in a line; none where it is no line of ours. Errors: WrongCommandError."""
    text = line.strip().removeprefix("$ ")
    if not MAYBE.search(text):
        return
    lexer = shlex.shlex(
        re.sub(r"\$\{\w+\[[^]]*\]\}|\$\{\w+\}|\$\w+", "1", text), posix=True, punctuation_chars="|;&()<>"
    )
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise WrongCommandError(f"no shell would read it: {error}") from None
    skip = False
    for token in [*tokens, ";"]:
        if SEPARATORS.match(token):
            if words:
                yield words
            words = []
        elif REDIRECTIONS.match(token):
            skip = True
        elif skip:
            skip = False
        else:
            words.append(token)


def find_program(words: list[str]) -> Program | None:
    """The script or module of ours that the words start. Errors: WrongCommandError for one that is not there."""
    for place, word in enumerate(words):
        after = words[place + 1 :]
        if re.fullmatch(r"(.*/)?python3?(\.\d+)?", word):
            continue
        if word == "-m" and after and ("python" in words[place - 1] or "torchrun" in words[:place]):
            return module(after[0], after[1:])
        if word.endswith((".py", ".sh", ".sbatch")) and not word.startswith("-") and "=" not in word:
            is_alone = not after and place == 0 and word.endswith(".py")
            is_ours = word not in FOREIGN and not word.startswith(MADE)
            return script(word, after) if is_ours and not is_alone else None
    return None


def module(name: str, arguments: list[str]) -> Program | None:
    path = ROOT.joinpath(*name.split("."))
    if not (ROOT / name.split(".")[0]).is_dir():
        if importlib.util.find_spec(name.split(".")[0]) is None:
            raise WrongCommandError(f"there is no module {name}")
        return None
    for file in (path.with_suffix(".py"), path / "__main__.py"):
        if file.is_file():
            return Program(file.relative_to(ROOT), tuple(arguments))
    raise WrongCommandError(f"there is no module {name}")


def script(name: str, arguments: list[str]) -> Program:
    if not (ROOT / name).is_file():
        raise WrongCommandError(f"there is no {name}")
    return Program(Path(name), tuple(arguments))


def check_program(program: Program, is_whole: bool) -> None:
    name, arguments = program.file.as_posix(), list(program.arguments)
    if name in TAKES_TRAINS:
        name = "train.py"
    if name.startswith("launcher/recipes/"):
        name, arguments = "train.py", ["--ds_config", "ds_configs/zero2.json", *arguments]
    if name.endswith(".py"):
        if is_whole and hands_flags_over(ROOT / name):
            parse_flags(ROOT / name, arguments)
        else:
            check_names(ROOT / name, arguments)


@cache
def hands_flags_over(path: Path) -> bool:
    """Whether its flags are a dataclass, which command_line.parse reads."""
    try:
        read(path)
    except ValueError:
        return False
    return True


def parse_flags(path: Path, arguments: list[str]) -> Any:
    """As the command does, its own checks of values included. Errors: WrongCommandError."""
    if {"--help", "-h"} & set(arguments):
        return None
    config = read(path).config
    given = [word for word in arguments if word not in MORE]
    is_whole = len(given) == len(arguments)
    if not is_whole:
        given = [*_missing(config, given), *given]
    for attempt in (given, [re.sub(r"^[A-Z]$", "1", word) for word in given]):  # N stands for a number
        told = io.StringIO()
        try:
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), everything_is_there():
                found: Any = parse(config, attempt, path.name)
                return _check_values(found) if is_whole else found
        except (SystemExit, ValueError) as error:
            reason = told.getvalue() or str(error)
    raise WrongCommandError(f"{path.relative_to(ROOT)} {shlex.join(arguments)}:\n{reason}")


@contextlib.contextmanager
def everything_is_there() -> Iterator[None]:
    """What a command reads, its reader has made before."""
    with patch.object(Path, "is_file", return_value=True), patch.object(Path, "is_dir", return_value=True):
        yield


def _missing(config: type, given: list[str]) -> list[str]:
    """Something for each flag that must be given and is not there."""
    names = {word.partition("=")[0].replace("-", "_") for word in given if word.startswith("--")}
    flags = [flag for group in groups(config) for flag in group.flags if flag.default is None]
    return [
        word
        for flag in flags
        if flag.name.replace("-", "_") not in names
        for word in ((flag.name, "1") if flag.name.startswith("--") else ("1",))
    ]


def _check_values(found: Any) -> Any:
    """What some commands check after parsing, part by part."""
    for part in (found, *vars(found).values()):
        if callable(getattr(part, "check", None)):
            if getattr(getattr(found, "output", None), "verify", ""):
                break
            part.check()
    return found


def check_names(path: Path, arguments: list[str]) -> None:
    """That the flags are declared. Errors: WrongCommandError."""
    declared = {"--help", *declared_names(path)}
    for word in arguments:
        flag = word.partition("=")[0].replace("-", "_").replace("__", "--", 1)
        if flag.startswith("--") and not {flag, flag.replace("--no_", "--", 1)} & declared:
            raise WrongCommandError(f"{path.relative_to(ROOT)} has no {flag}")


@cache
def declared_names(path: Path) -> frozenset[str]:
    """Flags of a dataclass, or of a parser that the module makes itself."""
    if hands_flags_over(path):
        return frozenset(flag.name for group in groups(read(path).config) for flag in group.flags)
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    options = [call for call in calls if ast.unparse(call.func).endswith(".add_argument")]
    return frozenset(str(arg.value) for call in options for arg in call.args if isinstance(arg, ast.Constant))


def check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            get_args_parser().parse_args(words)
    except SystemExit:
        raise WrongCommandError(f"torchrun {shlex.join(words)}: {told.getvalue()}") from None


def check_make(targets: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for target in targets:
        if "=" not in target and not target.startswith("-") and target not in known:
            raise WrongCommandError(f"make {target}: the Makefile has {', '.join(sorted(known))}")


def check_files(words: list[str]) -> None:
    """That files which come with the repository are there."""
    for word in words:
        name = word.partition("=")[2] if word.startswith("--") else word
        if name.startswith(SHIPPED) and not any(mark in name for mark in "*{<") and not (ROOT / name).exists():
            raise WrongCommandError(f"there is no {name}")
