"""What a report is made of: sections of blocks, which page.py writes as HTML and markdown.py as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """To a file or folder, relative to the report."""

    text: str
    target: str


Cell = str | Link


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Note:
    """Says what is not in the report, and why."""

    text: str


@dataclass(frozen=True)
class Table:
    """The first column names its row; all others hold figures, unless `is_text`."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing for the page, and its figures for who cannot see it and for Markdown."""

    title: str
    svg: str
    figures: Table | None = None


@dataclass(frozen=True)
class Charts:
    """Side by side where there is room."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Code:
    """Text as it is."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Opened by who wants to see it; on paper always open."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Drawn:
    """What each of the two writes in its own way."""

    html: str
    markdown: Sequence["Block"]


Block = Prose | Note | Table | Charts | Code | Fold | Drawn


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: Sequence[Block]
    begins_page: bool = False
    """On paper."""

    @property
    def anchor(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Document:
    """All of a report."""

    title: str
    subtitle: str
    sections: Sequence[Section]
