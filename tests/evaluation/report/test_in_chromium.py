"""The page as a browser lays it out: on a phone, on a desk, on paper, in the dark, without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluation.report.chromium import CHROMIUM, Chromium
from tests.evaluation.report.conftest import Reported

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

PAPER = 182 / 25.4 * 96  # CSS pixels between the margins of A4
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > document.documentElement.clientWidth + 1 && !e.closest('SCROLLS');
}).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def page(reported: Reported) -> Path:
    return reported.output / "report.html"


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1280])
def test_nothing_reaches_beyond_the_window(browser: Chromium, page: Path, width: int) -> None:
    """But tables that are scrolled alone, and labels inside drawings."""
    browser.open(page, width=width)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE.replace("SCROLLS", ".wide, svg")) == []
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


def test_nothing_but_the_page_is_asked_for(browser: Chromium, page: Path) -> None:
    browser.open(page, width=390)
    others = [url for url in browser.requested() if not url.startswith("data:")]
    assert others == [page.resolve().as_uri()]


def test_charts_are_drawn_and_can_be_read_on_a_phone(browser: Chromium, page: Path) -> None:
    browser.open(page, width=360)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(boxes) >= 9
    assert all(width > 300 and height > 50 for width, height in boxes)
    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('figure svg text')].map(t =>"
        " parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a))"
    )
    assert smallest > 9.5
    clipped = browser.evaluate(
        "[...document.querySelectorAll('figure svg text')].filter(t => {const b = t.getBoundingClientRect();"
        " return b.right > innerWidth + 1 || b.left < -1}).map(t => t.textContent)"
    )
    assert clipped == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(browser: Chromium, page: Path, scheme: str) -> None:
    """WCAG's 4.5 for text and the tokens' shades, 3 for lines; relative luminance as it defines it."""
    browser.open(page, width=390, scheme=scheme)
    names = (
        "ink",
        "paper",
        "soft",
        "link",
        "on-shade",
        *(f"hue{i}" for i in range(6)),
        *(f"k{i}" for i in range(1, 6)),
    )
    style = "getComputedStyle(document.documentElement)"
    colours = browser.evaluate(f"Object.fromEntries({[*names]}.map(n => [n, {style}.getPropertyValue('--' + n)]))")

    def contrast(first: str, second: str) -> float:
        light, dark = sorted((luminance(colours[first]), luminance(colours[second])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for name in ("ink", "link", *(f"hue{i}" for i in range(6))):  # names at the ends of lines are text
        assert contrast(name, "paper") >= 4.5, name
    assert contrast("ink", "soft") >= 4.5
    for i in range(1, 6):
        assert contrast("on-shade", f"k{i}") >= 4.5, i
    drawn = browser.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert luminance(drawn) == pytest.approx(luminance(colours["ink"]), abs=0.01)


def luminance(colour: str) -> float:
    if colour.strip().startswith("#"):
        digits = colour.strip()[1:]
        digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    else:
        parts = [int(number) for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_on_paper_no_table_is_cut_and_sections_begin_pages(browser: Chromium, page: Path) -> None:
    browser.open(page, width=round(PAPER))
    browser.print_media()
    assert browser.evaluate("document.documentElement.scrollWidth") <= round(PAPER)
    assert browser.evaluate(OUTSIDE.replace("SCROLLS", "svg")) == []
    cut = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth + 1)"
    assert browser.evaluate(f"{cut}.map(w => w.innerText.slice(0, 80))") == []
    shared = "document.querySelector('details.printed table').getBoundingClientRect().height"
    assert browser.evaluate(shared) > 100  # folded on the screen, open on paper
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    begun = browser.evaluate("document.querySelectorAll('section.page').length")
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert begun + 1 <= pages <= 25


def test_sentences_can_be_searched_and_are_all_there_without_scripts(browser: Chromium, page: Path) -> None:
    shown = "[...document.querySelectorAll('article.sentence')].filter(a => a.getBoundingClientRect().height).length"
    browser.open(page, width=390)
    assert browser.evaluate(shown) == 6
    word = browser.evaluate(
        "document.querySelector('article.sentence').dataset.text.trim().split(' ').sort((a, b) => b.length - a.length)[0]"
    )
    holding = browser.evaluate(
        f"[...document.querySelectorAll('article.sentence')].filter(a => a.dataset.text.includes('{word}')).length"
    )
    type_in = (
        "(t => {const i = document.querySelector('#find input'); i.value = t; i.dispatchEvent(new Event('input'))})"
    )
    browser.evaluate(f"{type_in}('{word.upper()}')")
    assert browser.evaluate(shown) == holding >= 1
    browser.evaluate(f"{type_in}('no such word')")
    assert browser.evaluate(shown) == 0
    assert browser.evaluate("document.querySelector('#find output').value") == "0 of 6"
    browser.open(page, width=390, scripts=False)
    browser("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.evaluate(shown) == 6
    assert browser.evaluate("document.querySelector('#find').hidden") is True


def test_every_token_has_its_difference_beneath_it(browser: Chromium, page: Path) -> None:
    browser.open(page, width=390)
    gaps = browser.evaluate(
        "[...document.querySelectorAll('ruby.token')].map(r => {const t = r.querySelector('rt');"
        " return t.textContent && t.getBoundingClientRect().top - r.getBoundingClientRect().top})"
    )
    assert len(gaps) > 50
    assert all(isinstance(gap, int | float) and gap > 5 for gap in gaps)
