"""Which files an argument stands for, and what is said where there are none; standard input as a file."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data.sources import SourceOptions, plan_inputs, spool_stdin
from tests.data.source_files import COMPRESS, as_jsonl, as_wiki, planned, read, write
from tests.launch import ROOT


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b/wiki_01", "b/wiki_00.bz2", "a.jsonl.xz", "c/d/e.txt", "c/.hidden/f.txt", ".g.txt"):
        content = as_wiki([name]) if "wiki" in name else as_jsonl([name]) if "jsonl" in name else name
        write(tmp_path / name, content)
    for name in ("README.md", "c/notes.md", "c/LICENSE", "state.json.bak", "b/dataset_infos.json"):
        write(tmp_path / name, "{}")
    write(tmp_path / "c/pretty.json", '{\n  "text": "x"\n}')
    (tmp_path / "c/loop").symlink_to(tmp_path)
    notes: list[str] = []
    items = plan_inputs([str(tmp_path)], SourceOptions(), 1 << 20, notes)
    found = [
        d for item in items for _, documents in item.parts(lambda _: True, lambda _: None) for d in documents or ()
    ]
    assert found == ["a.jsonl.xz", "b/wiki_00.bz2", "b/wiki_01", "c/d/e.txt"]
    (note,) = notes
    assert f"'{tmp_path}': 4 files are read, 6 are ignored (" in note
    assert "2 .md" in note


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "text")
    with pytest.raises(ValueError, match=rf"'{re.escape(str(tmp_path))}' has no file that can be read, of 1 files"):
        planned([tmp_path])


def test_globs_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("x/b.jsonl.xz", "x/y/a.jsonl.xz", "c.jsonl.xz", "x/d.txt", "x/f.md"):
        write(tmp_path / name, as_jsonl([name]) if "jsonl" in name else name)
    assert read(["~/**/*.jsonl.xz"]) == ["c.jsonl.xz", "x/b.jsonl.xz", "x/y/a.jsonl.xz"]
    assert read(["~/x/*"]) == ["x/b.jsonl.xz", "x/d.txt", "x/y/a.jsonl.xz"]  # the folder x/y as well
    assert read(["~/x/**"]) == ["x/b.jsonl.xz", "x/d.txt", "x/y/a.jsonl.xz"]  # and no file twice
    assert read(["~/c.jsonl.xz"]) == ["c.jsonl.xz"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no file matches 'x/\*\.parquet' in {re.escape(str(tmp_path))}"):
        planned(["x/*.parquet"])
    write(tmp_path / "odd[1].txt", "a name, not a pattern")
    assert read(["odd[1].txt"]) == ["a name, not a pattern"]


def test_files_given_twice_are_noted(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.txt", "one"), str(tmp_path)]
    notes: list[str] = []
    assert len(plan_inputs(paths, SourceOptions(), 1 << 20, notes)) == 1
    assert notes == [f"1 files are given more than once and read as often, the first is '{paths[0]}'"]


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.gz", "a.txt.gz.xz", "wiki_x", "wiki_00.tar", "parquet"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "text")
    with pytest.raises(ValueError, match=rf"{re.escape(path)}' has no known suffix\. \.txt, \.jsonl"):
        planned([path])


def test_missing_files_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file, folder or saved dataset '.*b\.txt'"):
        planned([write(tmp_path / "a.txt", "text"), tmp_path / "b.txt"])


@pytest.mark.parametrize("content", ['[\n {"text": "a"}\n]', '{\n "text": "a"\n}', '{"text":\n"a"}', "[]"])
@pytest.mark.parametrize("compression", ["", ".gz"])
def test_json_that_is_one_value_is_refused(tmp_path: Path, content: str, compression: str) -> None:
    path = write(tmp_path / f"a.json{compression}", content)
    with pytest.raises(ValueError, match=r"is one JSON value, not a record a line.*jq"):
        planned([path])


def test_a_file_that_only_looks_like_wikiextractors(tmp_path: Path) -> None:
    path = write(tmp_path / "wiki_00", "some notes")
    with pytest.raises(ValueError, match=rf"'{re.escape(path)}' is named like a file of WikiExtractor"):
        read([path])


@pytest.mark.parametrize("part_bytes", [1 << 20, 50])
def test_the_plan_depends_on_the_arguments_alone(tmp_path: Path, part_bytes: int) -> None:
    for number in range(20):
        write(tmp_path / f"{number}.txt", f"text {number}\n\n" * number)
    first, second = (planned([tmp_path], part_bytes) for _ in range(2))
    assert first == second
    assert sum(item.size for item in first) == sum(path.stat().st_size for path in tmp_path.iterdir())


STDIN = {
    "jsonl": (as_jsonl(["a", "b"]), "stdin.jsonl"),
    "marked": ("\ufeff\n " + as_jsonl(["a", "b"]), "stdin.jsonl"),
    "txt": ("a\n\nb\n", "stdin.txt"),
    "wiki": (as_wiki(["a", "b"]), "wiki_0"),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", STDIN)
def test_standard_input_as_a_file(tmp_path: Path, kind: str, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, name = STDIN[kind]
    stored = COMPRESS[compression](content.encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stored)))
    path = spool_stdin(tmp_path / "new")
    assert path == tmp_path / "new" / f"{name}{compression}"
    assert path.read_bytes() == stored
    assert os.listdir(tmp_path / "new") == [path.name]
    assert read([path]) == ["a", "b"]


def test_a_pipe_that_gives_nothing(tmp_path: Path) -> None:
    script = f"from pathlib import Path; from data.sources import spool_stdin; spool_stdin(Path('{tmp_path}'))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, input=b"", capture_output=True, timeout=60)
    assert b"ValueError: '-' reads standard input, which is empty" in ended.stderr
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="'-' is standard input, which only one process can read"):
        planned(["-"])
