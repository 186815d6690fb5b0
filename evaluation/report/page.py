"""The report as one HTML page: nothing is fetched, so that it can be mailed, and it can be read without its script."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from evaluation.report.document import (
    Block,
    Cell,
    Chart,
    Charts,
    Code,
    Document,
    Drawn,
    Fold,
    Link,
    Note,
    Prose,
    Section,
    Table,
)

_HERE = Path(__file__).parent


def as_html(document: Document) -> str:
    """The page. Whatever comes from a run or a text is escaped."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    contents = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in document.sections)
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n',
            f"<title>{escape(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n",
            f"<header>\n<h1>{escape(document.title)}</h1>\n<p>{escape(document.subtitle)}</p>\n",
            f'<nav aria-label="Sections"><ul>{contents}</ul></nav>\n</header>\n<main>\n',
            *(_section(section) for section in document.sections),
            f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
        ]
    )


def _section(section: Section) -> str:
    blocks = "".join(part for block in section.blocks for part in _block(block))
    heading = f'<h2 id="{section.anchor}">{escape(section.title)}</h2>'
    kind = ' class="page"' if section.begins_page else ""
    return f'<section{kind} aria-labelledby="{section.anchor}">\n{heading}\n{blocks}</section>\n'


def _block(block: Block) -> Iterator[str]:
    match block:
        case Prose():
            yield f"<p>{escape(block.text)}</p>\n"
        case Note():
            yield f'<p class="note">{escape(block.text)}</p>\n'
        case Table():
            yield _table(block)
        case Charts():
            yield f'<div class="charts">\n{"".join(map(_chart, block.charts))}</div>\n'
        case Code():
            yield f"<pre>{escape(block.text)}</pre>\n"
        case Fold():
            inner = "".join(part for each in block.blocks for part in _block(each))
            yield f'<details class="printed">\n<summary>{escape(block.title)}</summary>\n{inner}</details>\n'
        case Drawn():
            yield block.html


def _chart(chart: Chart) -> str:
    drawing = f'<div role="img" aria-label="{escape(chart.title)}">{chart.svg}</div>'
    figures = f"<details><summary>Figures</summary>{_table(chart.figures)}</details>" if chart.figures else ""
    return f"<figure>\n<figcaption>{escape(chart.title)}</figcaption>\n{drawing}\n{figures}</figure>\n"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = []
    for first, *others in table.rows:
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in others)
        rows.append(f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>\n')
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    kind = ' class="text"' if table.is_text else ""
    body = f"{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>"
    # A table wider than a phone is scrolled alone; who has no mouse reaches it with the keyboard.
    label = escape(table.caption or table.header[0] or "Table")
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table{kind}>{body}</table></div>\n'


def _cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<a class="file" href="{escape(quote(cell.target))}">{escape(cell.text)}</a>'
    return escape(cell)
