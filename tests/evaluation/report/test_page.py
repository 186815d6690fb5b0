"""The two files as such: well-formed, self-contained, linked, and of the same figures."""

import itertools
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from evaluation.report.charts import Bar, BarGroup, Curve, Fan, bars, curves, short, spread
from evaluation.report.document import Document, Link, Note, Prose, Section, Table
from evaluation.report.markdown import as_markdown
from evaluation.report.page import as_html
from tests.evaluation.report.conftest import HOSTILE, Reported

VOID = {"meta", "link", "br", "wbr", "input", "img", "hr"}


class Page(HTMLParser):
    """Elements with their attributes; complains of what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def page(reported: Reported) -> Page:
    return Page(reported.html)


def test_nothing_is_fetched(page: Page, reported: Reported) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert not re.match(r"(https?:)?//", attributes.get(name, ""))
    assert not page.all("img", "iframe", "object", "embed", "base")
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not re.search(r"@import|url\((?!#)", reported.html)


def test_every_link_leads_somewhere(page: Page, reported: Reported) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]
    files = [link for link in links if not link.startswith("#")]
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert len(files) > 12
    for link in files:
        assert (reported.output / unquote(link)).exists(), link
    for target in re.findall(r"\]\(([^)]*)\)", reported.markdown):
        assert (reported.output / unquote(target)).exists(), target


def test_ids_are_unique_also_those_inside_the_charts(page: Page, reported: Reported) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", reported.html)) <= set(ids)


def test_what_comes_from_a_run_is_text(page: Page, reported: Reported) -> None:
    assert len(page.all("script")) == 1
    assert HOSTILE in page.text
    assert "a & <b> run" in page.text
    assert not page.all("b") or all("run" not in attributes for attributes in page.all("b"))
    (row,) = [line for line in reported.markdown.splitlines() if "alert" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_it_is_made_for_who_cannot_see_it(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    charts = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(charts) == len(page.all("svg")) >= 9
    assert all(chart["aria-label"] for chart in charts)
    assert all("viewbox" in svg and "width" not in svg for svg in page.all("svg"))


@pytest.mark.parametrize("file", ["html", "markdown"])
def test_both_files_have_the_figures(reported: Reported, page: Page, file: str) -> None:
    text = page.text if file == "html" else reported.markdown.replace("\\", "")
    for wanted in (
        "retains 92.7% of the teacher's accuracy",  # 0.179 / 0.193
        "410 of 560 updates (73%)",
        "Forecast for the planned end",
        "pretraining has no held-out text",
        "75.6%",  # 0.146 / 0.193: retention at update 80
        "10 ms (2.00x)",
        "rank 1 micro-batch 1",
        "KL(teacher || student)",
    ):
        assert wanted in text, wanted


def test_every_row_of_markdown_has_the_columns_of_its_header(reported: Reported) -> None:
    columns = 0
    for line in reported.markdown.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        count = len(re.findall(r"(?<!\\)\|", line))
        columns = columns or count
        assert count == columns, line


def texts(svg: str) -> list[str]:
    """What is written in a drawing, which is well-formed XML."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_chart_names_its_lines_and_its_level() -> None:
    lines = [
        Curve(name="one", x=[0, 1e6, 2e6], y=[0.5, float("nan"), 0.7], style=0, has_markers=True),
        Curve(
            name="a name that is very long",
            x=[0, 2e6],
            y=[0.1, 0.2],
            style=1,
            fan=Fan(x=4e6, low=0.2, middle=0.3, high=0.4),
        ),
        Curve(name="nothing known", x=[0.0], y=[float("nan")], style=7),
    ]
    written = texts(curves("c", lines, level=("teacher", 0.9), is_share=True))
    assert {"one", "a name that is …", "teacher", "tokens trained on", "3M", "75%"} <= set(written)
    assert "nothing known" not in written


def test_a_logarithmic_chart_of_a_narrow_range_has_ticks() -> None:
    for low in (0.061, 0.93, 5.9):
        line = Curve(name="loss", x=[0, 1e6], y=[low * 1.3, low], style=0)
        ticks = [text for text in texts(curves("c", [line], is_logarithmic=True)) if re.fullmatch(r"[\d.]+", text)]
        assert 2 <= len(set(ticks)) <= 7


def test_charts_of_the_same_figures_are_the_same_text() -> None:
    """A report that is committed changes where its figures do."""
    groups = [BarGroup(heading="g", bars=[Bar(name="$x_1$", value=0.9, style=0, label="90%")])]
    first, second = (bars("b", groups, level="teacher") for _ in range(2))
    assert first == second
    assert {"g", "$x_1$", "90%", "teacher"} <= set(texts(first))


def test_names_that_would_overlap_are_pushed_apart() -> None:
    placed = spread([0.5, 0.51, 0.1, 0.5], 0.1)
    ordered = sorted(placed)
    assert all(b - a > 0.099 for a, b in itertools.pairwise(ordered))
    assert placed[2] == 0.1
    assert placed[1] == max(placed)
    assert max(spread([0.99, 1.0, 1.0], 0.1)) <= 1.0
    assert spread([], 0.1) == []


def test_counts_in_short() -> None:
    assert [short(n) for n in (0, 950, 8_000, 1_234_567, 3e9)] == ["0", "950", "8k", "1.23M", "3B"]


def test_both_writers_know_every_block(tmp_path: Path) -> None:
    table = Table(("a", "b"), [["1", Link("x y", "x y.json")]], caption="c", is_text=True)
    document = Document("T", "s", [Section("One & two", [Prose("p *p*"), Note("n"), table], begins_page=True)])
    page, markdown = Page(as_html(document)), as_markdown(document)
    assert {"id": "one-two"} in page.all("h2")
    assert page.all("a")[-1]["href"] == "x%20y.json"
    assert r"p \*p\*" in markdown
    assert "| 1 | [x y](x%20y.json) |" in markdown
