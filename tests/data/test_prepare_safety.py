"""What a preparation must never do: replace what it reads, mix corpora, or lose one that is there."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data import preparation
from data.adopt import main as adopt
from data.indexed_dataset import IndexedDataset
from data.prepare import main
from data.sidecar import read_sidecar
from tests.data.helpers import random_texts
from tests.launch import ROOT, environment


def run(*arguments: object) -> int:
    return main([str(argument) for argument in [*arguments, "--workers", 1]])


def error_of(capsys: pytest.CaptureFixture) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def write(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def flags(tokenizer_folder: Path) -> list[object]:
    return ["--tokenizer", tokenizer_folder]


def content(prefix: Path) -> dict[str, bytes]:
    return {end: Path(f"{prefix}{end}").read_bytes() for end in (".bin", ".idx", ".json", ".token_counts.npy")}


def test_an_input_is_never_replaced(tmp_path: Path, flags: list[object], capsys: pytest.CaptureFixture) -> None:
    source = write(tmp_path / "a/wiki.json", random_texts(20))
    for given in (source, tmp_path / "a", tmp_path / "a/*.json"):
        assert run("--input", given, *flags, "--output", tmp_path / "a/wiki", "--overwrite") == 2
        assert "would replace it" in error_of(capsys)
    assert source.read_text().count("\n") == 20
    assert os.listdir(tmp_path / "a") == ["wiki.json"]


def test_a_folder_of_that_name_is_not_taken_for_ones_own(
    tmp_path: Path, flags: list[object], capsys: pytest.CaptureFixture
) -> None:
    source = write(tmp_path / "book.parts/0.json", ["chapter one"])
    for given in (source, tmp_path / "nowhere.txt"):
        assert run("--input", given, *flags, "--output", tmp_path / "book") == 2
        assert "no folder of an unfinished preparation" in error_of(capsys)
    assert source.exists()


def test_a_corpus_inside_its_input_is_not_read_again(tmp_path: Path, flags: list[object]) -> None:
    write(tmp_path / "c/a.jsonl", ["one", "two", ""])
    command = ["--input", tmp_path / "c", *flags, "--max_bad_share", 0.5, "--output", tmp_path / "c/wiki"]
    assert run(*command) == 0
    before = content(tmp_path / "c/wiki")
    assert run(*command, "--overwrite") == 0
    assert content(tmp_path / "c/wiki") == before
    assert (tmp_path / "c/wiki.bad.jsonl").exists()


def test_what_is_held_out_stays_held_out(tmp_path: Path, flags: list[object], capsys: pytest.CaptureFixture) -> None:
    source, prefix = write(tmp_path / "a.jsonl", random_texts(60)), tmp_path / "x"
    assert run("--input", source, *flags, "--output", prefix, "--heldout_share", 0.2) == 0
    assert run("--input", source, *flags, "--output", prefix, "--overwrite") == 2
    assert "x-heldout' was held out of" in error_of(capsys)
    assert adopt([f"{prefix}-heldout", "--tokenizer", str(flags[1]), "--output", str(tmp_path / "y")]) == 0
    sidecar = read_sidecar(tmp_path / "y")
    assert sidecar is not None
    assert sidecar.split.part == "heldout"
    assert adopt([str(prefix), "--tokenizer", str(flags[1]), "--output", str(tmp_path / "z/../x")]) == 2
    assert IndexedDataset(prefix).num_documents > 30


def test_an_old_corpus_stays_until_the_new_one_is_whole(
    tmp_path: Path, flags: list[object], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(tmp_path / "1.jsonl", random_texts(20)), write(tmp_path / "2.jsonl", random_texts(30, seed=1))
    prefix = tmp_path / "x"
    assert run("--input", first, *flags, "--output", prefix) == 0
    before = content(prefix)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "flush_folder", full)
        assert run("--input", second, *flags, "--output", prefix, "--overwrite") == 2
    assert "No space left on device" in error_of(capsys)
    assert content(prefix) == before
    assert run("--verify", prefix) == 0
    assert run("--input", second, *flags, "--output", prefix, "--overwrite") == 0
    assert IndexedDataset(prefix).num_documents == 30


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_while_a_corpus_is_put_into_its_place(tmp_path: Path, flags: list[object], moment: int) -> None:
    """At each rename: the same command goes on, and no mixture of two corpora is ever taken for one."""
    source, prefix = write(tmp_path / "a.jsonl", random_texts(60)), tmp_path / "x"
    command = ["--input", source, *flags, "--output", prefix, "--heldout_share", 0.2]
    script = f"""
import os, pathlib, sys
from data import preparation
from data.prepare import main
moment, publish, replace, rename = [{moment}], preparation._publish, pathlib.Path.replace, pathlib.Path.rename
def counted(move):
    def one(*arguments):
        moment[0] -= 1
        if moment[0] < 0:
            os.kill(os.getpid(), 9)
        return move(*arguments)
    return one
def killed(*arguments):
    pathlib.Path.replace, pathlib.Path.rename = counted(replace), counted(rename)
    publish(*arguments)
    pathlib.Path.replace, pathlib.Path.rename = replace, rename
preparation._publish = killed
sys.exit(main(sys.argv[1:]))
"""
    arguments = [sys.executable, "-c", script, *(str(part) for part in command), "--workers", "1"]
    code = subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, check=False).returncode
    if moment < 10:  # three files, a folder and a description of each of two corpora
        assert code == -signal.SIGKILL
        assert not Path(f"{prefix}.json").exists()
        assert run(*command) == 0
    else:
        assert code == 0
    for name in ("x", "x-heldout"):
        assert run("--verify", tmp_path / name) == 0
    assert IndexedDataset(prefix).num_documents + IndexedDataset(f"{prefix}-heldout").num_documents == 60
    assert not Path(f"{prefix}.parts").exists()


def test_broken_records_are_judged_all_together(tmp_path: Path, flags: list[object]) -> None:
    """Where they stand, and how many processes read them, decides nothing."""
    source = tmp_path / "a.jsonl"
    bad, good = '{"text": 1}\n', '{"text": "fine"}\n'
    source.write_text((bad + 24 * good) * 500 + good * 40_000)
    assert run("--input", source, *flags, "--output", tmp_path / "x", "--max_bad_share", 0.01) == 0
    assert run("--input", source, *flags, "--output", tmp_path / "y", "--max_bad_share", 0.009) == 2
    named = (tmp_path / "y.bad.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in named] == list(range(1, 12_500, 25))


def test_the_same_text_piped_again_is_the_same_input(
    tmp_path: Path, flags: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = "\n\n".join(text.replace("\n", " ") for text in random_texts(20)).encode()
    for number in range(2):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        with monkeypatch.context() as patch:
            if number == 0:
                patch.setattr(preparation, "merge", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            assert run("--input", "-", *flags, "--output", tmp_path / "x") == (2 if number == 0 else 0)
    assert "discarded" not in capsys.readouterr().err


@pytest.mark.parametrize("output", ["d/", "d/..", "e\u3000x"])
def test_names_that_no_corpus_can_have(
    tmp_path: Path, flags: list[object], capsys: pytest.CaptureFixture, output: str
) -> None:
    source = write(tmp_path / "a.jsonl", ["text"])
    assert run("--input", source, *flags, "--output", f"{tmp_path}/{output}") == 2
    assert "is no prefix of file names" in error_of(capsys)


def test_a_pods_rank_does_not_silence_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data.prepare", "--input", "nowhere.txt", "--train_vocab", "99", "--output", "x"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment() | {"RANK": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no file")
