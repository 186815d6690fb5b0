"""Plain text into Markdown that GitHub shows as it was meant."""

import re
from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `python -m docs.generator`: change what it is made from, not this page. -->\n"


def cell(text: str) -> str:
    """Prose of a docstring as one cell of a table; flags in it are set as code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else _prose(part) for part in parts).replace("|", "\\|")


def _prose(text: str) -> str:
    escaped = re.sub(r"([*<])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])(--[a-z][a-z_0-9]*(?:-[a-z]+)*|hf:NAME(?::CONFIG:SPLIT)?)", r"`\1`", escaped)


def code(text: object) -> str:
    return f"`{text}`".replace("|", "\\|") if str(text) else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
