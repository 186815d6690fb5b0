"""The report as Markdown: the same tables, charts as their figures, fit to be committed."""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from evaluation.report.document import Block, Cell, Charts, Code, Document, Drawn, Fold, Link, Note, Prose, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


def as_markdown(document: Document) -> str:
    parts = [f"# {_escaped(document.title)}", _escaped(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {_escaped(section.title)}")
        for block in section.blocks:
            parts += _block(block)
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Prose():
            yield _escaped(block.text)
        case Note():
            yield f"*{_escaped(block.text)}*"
        case Table():
            yield _table(block)
        case Charts():
            for chart in block.charts:
                if chart.figures:
                    yield f"**{_escaped(chart.title)}**"
                    yield _table(chart.figures)
        case Code():
            yield "\n".join(f"    {line}" for line in block.text.splitlines())
        case Fold():
            yield f"**{_escaped(block.title)}**"
            for inner in block.blocks:
                yield from _block(inner)
        case Drawn():
            for inner in block.markdown:
                yield from _block(inner)


def _table(table: Table) -> str:
    rule = ["---", *("---" if table.is_text else "---:" for _ in table.header[1:])]
    lines = [_row(table.header), f"|{'|'.join(rule)}|", *map(_row, table.rows)]
    return "\n".join([*([_escaped(table.caption), ""] if table.caption else []), *lines])


def _row(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f"[{_escaped(cell.text)}]({quote(cell.target)})"
    return _escaped(cell)


def _escaped(text: str) -> str:
    """What a text says must not become markup, nor end a row."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
