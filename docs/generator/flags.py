"""A command's flags, read from the dataclasses that its parser gets. Nothing that a command imports later is imported."""

import ast
import dataclasses
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

POSITIONAL = get_args(tyro.conf.Positional[str])[1]
"""What marks the type of an argument that is given without a flag."""
WORDS = {str: "text", int: "whole number", float: "number", bool: "switch"}
OF_THE_LAUNCHER = "local_rank"
"""Declared because the deepspeed launcher passes it; nothing for a reader."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag, or an argument without one."""

    name: str
    """With its dashes, or in capitals."""
    takes: str
    """What has to follow it."""
    default: str | None
    """As it would be typed; None where the flag must be given, "" where its text says what happens without it."""
    help: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """The flags of one dataclass."""

    about: str
    owner: str
    """The module that declares them."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A command's file up to the point where it parses."""

    description: str
    config: type


@cache
def read(path: Path) -> Source:
    """What `path` says of itself, and the dataclass that it hands to the parser.

    Runs the file's statements before `if __name__ == "__main__"`: what a command runs before --help, and no more.
    Errors: ValueError where it parses no flags.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name = next(filter(None, map(_parsed_config, ast.walk(tree))), None)
    if name is None:
        raise ValueError(f"{path} hands no dataclass to command_line.parse")
    mains = [number for number, node in enumerate(tree.body) if isinstance(node, ast.If) and _is_main(node)]
    first = ast.Module(tree.body[: mains[0]] if mains else tree.body, type_ignores=[])
    module = types.ModuleType(f"docs.generator.flags of {'.'.join(path.with_suffix('').parts[-3:])}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # inspect and dataclasses look a class's module up by its name
    exec(compile(first, str(path), "exec"), module.__dict__)
    return Source(description=ast.get_docstring(tree) or "", config=getattr(module, name))


def _parsed_config(node: ast.AST) -> str | None:
    """The name in `parse(NAME, ...)`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "parse" and node.args:
        return ast.unparse(node.args[0])
    return None


def _is_main(node: ast.If) -> bool:
    return "__name__" in ast.unparse(node.test)


def groups(config: type) -> Iterator[Group]:
    """One for a flat dataclass, one for each field of a dataclass of dataclasses."""
    parts = [hint for hint in get_type_hints(config).values() if dataclasses.is_dataclass(hint)]
    for part in parts or [config]:
        assert isinstance(part, type)
        yield Group(about=inspect.getdoc(part) or "", owner=_owner(part), flags=tuple(_flags(part)))


def _owner(config: type) -> str:
    path = Path(inspect.getsourcefile(config) or "")
    return path.relative_to(Path(__file__).resolve().parent.parent.parent).as_posix()


def _flags(config: type) -> Iterator[Flag]:
    hints, texts = get_type_hints(config, include_extras=True), _texts_beneath(config)
    for field in dataclasses.fields(config):
        if field.name == OF_THE_LAUNCHER:
            continue
        hint = hints[field.name]
        is_positional = get_origin(hint) is Annotated and POSITIONAL in get_args(hint)[1:]
        hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        default = None if field.default is dataclasses.MISSING else field.default
        yield Flag(
            name=field.name.upper() if is_positional else f"--{field.name}",
            takes=_takes(hint),
            default=None if field.default is dataclasses.MISSING else _typed(default),
            help=texts[field.name],
        )


def _texts_beneath(config: type) -> dict[str, str]:
    """Field -> the string beneath it."""
    (found,) = ast.parse(inspect.cleandoc(inspect.getsource(config))).body
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for node, after in zip(found.body, found.body[1:], strict=False):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[node.target.id] = inspect.cleandoc(str(after.value.value))
    return texts


def _takes(hint: Any) -> str:
    """The type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        inner = arguments[0]
        return f"any of {_takes(inner)}" if get_origin(inner) is Literal else f"{_takes(inner)}, one or more"
    if origin in (Union, types.UnionType):
        return _takes(next(argument for argument in arguments if argument is not type(None)))
    return WORDS[hint]


def _typed(value: Any) -> str:
    """A default as one would type it; of a switch, what it is."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
