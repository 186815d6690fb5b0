"""The repository's Markdown: its files, headings, links and code."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.launch import ROOT

NOT_OURS = {".git", "shared", "node_modules", "exports"}
"""Folders that are linked, fetched or written, beside those that .gitignore names."""
FENCE = re.compile(r"^\s*(```|~~~)")
HEADING = re.compile(r"^#{1,6} +(.*?)\s*#*$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Line:
    """One line of a page."""

    number: int
    text: str
    is_code: bool


def pages() -> list[Path]:
    """Every Markdown file, by its path in the repository."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    skipped = NOT_OURS | {name.strip("/") for name in ignored if name.endswith("/")}
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(set(folders) - skipped)
        found += [(Path(folder) / name).relative_to(ROOT) for name in files if name.endswith(".md")]
    return sorted(found)


def lines(page: Path) -> Iterator[Line]:
    """Told apart as GitHub does: fenced code, and code indented by four spaces after an empty line."""
    is_fenced, was_empty, is_indented = False, True, False
    for number, text in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), start=1):
        if FENCE.match(text):
            is_fenced = not is_fenced
            was_empty, is_indented = False, False
            continue
        if not is_fenced:
            is_indented = text.startswith("    ") and (is_indented or was_empty)
        yield Line(number, text, is_fenced or is_indented)
        if text.strip():
            was_empty = False
        else:
            was_empty, is_indented = True, is_indented and not is_fenced


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    seen: dict[str, int] = {}
    found = set()
    for line in lines(page):
        heading = None if line.is_code else HEADING.match(line.text)
        if heading:
            slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()).replace(
                " ", "-"
            )
            found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
            seen[slug] = seen.get(slug, 0) + 1
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """(line, target) of links in prose, addresses of the web left out."""
    text = SPAN.sub(lambda span: "\n" * span[0].count("\n"), prose(page))
    for link in LINK.finditer(text):
        if not re.match(r"[a-z]+:", link[1]):
            yield text.count("\n", 0, link.start()) + 1, link[1]


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """(line, code) set as code inside prose."""
    text = prose(page)
    for span in SPAN.finditer(text):
        yield text.count("\n", 0, span.start()) + 1, " ".join(span[1].split())


def prose(page: Path) -> str:
    """The page with its blocks of code empty, line by line: what is in brackets or backticks may go over two lines."""
    text, number = "", 1
    for line in lines(page):
        text += "\n" * (line.number - number)
        text += "" if line.is_code else line.text
        number = line.number
    return text


def code_lines(page: Path) -> Iterator[tuple[int, str]]:
    """(line, code) of blocks, lines that a backslash continues joined to one."""
    started, kept = 0, ""
    for line in lines(page):
        if not line.is_code:
            started, kept = 0, ""
            continue
        started = started or line.number
        text = line.text.strip()
        if text.endswith("\\"):
            kept += text[:-1] + " "
            continue
        yield started, kept + text
        started, kept = 0, ""
