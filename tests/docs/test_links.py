"""Links between the repository's pages lead somewhere, and no page knows the machine that it was written on."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import anchors, lines, links, pages
from tests.launch import ROOT

MACHINE = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|Users|mnt)/")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for number, target in links(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.resolve().is_relative_to(ROOT.resolve()), f"{page}:{number}: {target} leads out of the repository"
        assert file.exists(), f"{page}:{number}: there is no {target}"
        if anchor:
            known = anchors(file.resolve().relative_to(ROOT.resolve()))
            assert anchor in known, f"{page}:{number}: {target}: the headings there are {sorted(known)}"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    found = [f"{page}:{line.number}: {line.text.strip()}" for line in lines(page) if MACHINE.search(line.text)]
    assert not found


def test_every_page_of_docs_can_be_reached_from_its_map() -> None:
    start = Path("docs/README.md")
    reached, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for _, target in links(page):
            file = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            next_page = file.relative_to(ROOT.resolve())
            if file.suffix == ".md" and next_page not in reached:
                reached.add(next_page)
                waiting.append(next_page)
    assert {page for page in pages() if page.parts[0] == "docs"} <= reached
