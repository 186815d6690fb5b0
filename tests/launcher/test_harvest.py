"""The demo's corpus."""

import json
from pathlib import Path

import pytest

from launcher import harvest

SOURCE = '''"""A module that explains itself in enough words to be kept."""
class Thing:
    """A class whose documentation is just as long as it has to be."""
    def act(self):
        "short"
    async def wait(self):
        """
        Indented text over
            several lines, long enough to be kept as one document string.
        """
'''


def test_documentation_strings_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    found = harvest.documentation(tmp_path / "a.py")
    assert [text.split()[0] for text in found] == ["A", "A", "Indented"]


@pytest.mark.parametrize("content", [b"def broken(:", b"\xff\xfe", b"", b"x = 1\x00"])
def test_what_does_not_parse_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert harvest.documentation(tmp_path / "a.py") == []


def test_harvest_splits_and_drops_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for number in range(300):
        text = f'"""Document number {number} has a text of its own, so it is kept."""\n'
        common = '"""The same words stand in every one of these files."""\n'
        files.append(tmp_path / f"{number:03}.py")
        files[-1].write_text(f"{text}class C:\n    {common}")
    monkeypatch.setattr(harvest, "source_files", lambda: files)
    assert harvest.harvest(tmp_path / "out")[0] == 300
    lines = {
        name: [json.loads(line)["text"] for line in (tmp_path / f"out/{name}.jsonl").read_text().splitlines()]
        for name in ("train", "heldout")
    }
    assert len(lines["train"]) + len(lines["heldout"]) == 300
    assert not set(lines["train"]) & set(lines["heldout"])
    assert 1 <= len(lines["heldout"]) <= 20
    everything = "\n".join(lines["train"] + lines["heldout"])
    assert everything.count("The same words stand") == 1


def test_source_files_are_of_python_and_its_packages() -> None:
    names = {str(path) for path in harvest.source_files()}
    assert any(name.endswith("/json/decoder.py") for name in names)
    assert any("/site-packages/torch/" in name for name in names)
