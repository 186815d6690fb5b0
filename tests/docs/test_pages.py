"""What is prose, code, a link and an anchor of a page, as GitHub sees it."""

from pathlib import Path

import pytest

from tests.docs.pages import anchors, code_lines, links, spans

PAGE = """# Of `code`, (brackets) and two - dashes

See [a link over
two lines](other.md#there), `[no](link.md)` and [the web](https://example.org).

    make demo \\
      --twice
    # no heading

- a list
    with a second line

```
# no heading either
[no](link.md)
```

## Twice
## Twice

A `span over
two lines`.
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def test_links_are_found_outside_code(page: Path) -> None:
    assert list(links(page)) == [(3, "other.md#there")]


def test_anchors_are_githubs(page: Path) -> None:
    assert anchors(page) == {"of-code-brackets-and-two---dashes", "twice", "twice-1"}


def test_code_is_told_from_prose(page: Path) -> None:
    assert list(code_lines(page)) == [
        (6, "make demo  --twice"),
        (8, "# no heading"),
        (14, "# no heading either"),
        (15, "[no](link.md)"),
    ]
    assert [code for _, code in spans(page)] == ["code", "[no](link.md)", "span over two lines"]
