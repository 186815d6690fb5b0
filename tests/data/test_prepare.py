"""The command: the same bytes for any number of workers, one line for every error, nothing torn left behind."""

import gzip
import json
import lzma
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data import prepare_plan
from data.batching import Corpus
from data.indexed_dataset import IndexedDataset
from data.prepare import main
from data.tokenizer import load_tokenizer, vocabulary_fingerprint
from tests.data.helpers import documents_of, random_texts

REPOSITORY = Path(__file__).parents[2]


def write_jsonl(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def files_of(prefix: Path) -> dict[str, bytes]:
    """Suffix -> content of everything at a prefix, but for the name itself in the .json."""
    found = {}
    for path in sorted(prefix.parent.rglob("*")):
        if path.is_file() and str(path).startswith(f"{prefix}."):
            found[str(path).removeprefix(str(prefix))] = path.read_bytes()
    found[".json"] = found[".json"].replace(f'"{prefix.name}.tokenizer"'.encode(), b"PREFIX")
    return found


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_the_corpus_holds_the_documents(tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture) -> None:
    texts = [*random_texts(40), "", "  \n ", "\x00\x01", *random_texts(5, seed=9)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    flags = ["--tokenizer", tokenizer_folder, "--output", tmp_path / "c/x", "--workers", "1", "--max_bad_share", "0.1"]
    assert run("--input", source, *flags) == 0
    assert "45 documents" in capsys.readouterr().out

    tokenizer = load_tokenizer(str(tokenizer_folder))
    expected = [ids.tolist() for ids in tokenizer.encode_batch(texts) if len(ids)]
    dataset = IndexedDataset(tmp_path / "c/x")
    found = documents_of(dataset)
    assert found == expected
    flat = np.concatenate(expected)
    assert np.array_equal(dataset.token_counts(), np.bincount(flat, minlength=tokenizer.vocab_size))
    sidecar = dataset.sidecar
    assert sidecar is not None
    assert sidecar.dropped == {"empty": 2, "no_tokens": 1}
    assert (sidecar.documents, sidecar.tokens, sidecar.inputs) == (45, len(flat), ["a.jsonl"])
    assert sidecar.tokenizer.fingerprint == tokenizer.fingerprint
    assert vocabulary_fingerprint(tmp_path / "c" / sidecar.tokenizer.files) == tokenizer.fingerprint
    assert Corpus.open(tmp_path / "c/x", max_length=64).num_sequences >= 45


def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_plan, "PART_BYTES", 9000)  # many parts from little text
    sources = [write_jsonl(tmp_path / f"{i}.jsonl", random_texts(150, seed=i)) for i in range(2)]
    for workers in (1, 2, 3):
        arguments = ["--tokenizer", tokenizer_folder, "--output", tmp_path / f"w{workers}", "--workers", str(workers)]
        assert run("--input", *sources, *arguments) == 0
    one, two, three = (files_of(tmp_path / f"w{workers}") for workers in (1, 2, 3))
    assert set(one) >= {".bin", ".idx", ".json", ".token_counts.npy", ".tokenizer/tokenizer.json"}
    assert one == two == three
    assert not [path for path in tmp_path.rglob("*") if "part" in path.name]


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def test_every_suffix_gives_the_same_corpus(tmp_path: Path, tokenizer_folder: Path) -> None:
    texts = [text.replace("\n", " ") for text in random_texts(20)]
    contents = {
        ".txt": "\n\n".join(texts),
        ".jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts),
    }
    corpora = set()
    for suffix, content in contents.items():
        for compression, compress in COMPRESS.items():
            source = tmp_path / f"a{suffix}{compression}"
            source.write_bytes(compress(content.encode()))
            prefix = tmp_path / f"x{suffix}{compression}"
            assert run("--input", source, "--tokenizer", tokenizer_folder, "--output", prefix, "--workers", "1") == 0
            corpora.add((Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()))
    assert len(corpora) == 1


def test_a_vocabulary_is_trained_on_the_input(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", random_texts(100))
    for name in ("x", "y"):
        assert run("--input", source, "--train-vocab", "300", "--output", tmp_path / name, "--workers", "1") == 0
    assert files_of(tmp_path / "x") == files_of(tmp_path / "y")
    assert load_tokenizer(str(tmp_path / "x.tokenizer")).vocab_size == 300
    assert IndexedDataset(tmp_path / "x").token_counts().shape == (300,)


def test_a_complete_corpus_is_only_replaced_when_asked(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    first, second = (write_jsonl(tmp_path / f"{i}.jsonl", random_texts(5, seed=i)) for i in range(2))
    common = ["--tokenizer", tokenizer_folder, "--output", tmp_path / "x", "--workers", "1"]
    assert run("--input", first, *common) == 0
    before = files_of(tmp_path / "x")
    assert run("--input", second, *common) == 2
    assert "complete corpus already" in capsys.readouterr().err
    assert files_of(tmp_path / "x") == before
    assert run("--input", tmp_path / "missing.txt", *common, "--overwrite") == 2
    assert files_of(tmp_path / "x") == before
    assert run("--input", second, *common, "--overwrite") == 0
    assert files_of(tmp_path / "x") != before
    assert run("--verify", tmp_path / "x") == 0


ERRORS = {
    "no input": (["--tokenizer", "TOKENIZER", "--output", "OUT"], "--input is empty"),
    "no output": (["--input", "GOOD", "--tokenizer", "TOKENIZER"], "--output is empty"),
    "no tokenizer": (["--input", "GOOD", "--output", "OUT"], "give exactly one of them"),
    "two tokenizers": (
        ["--input", "GOOD", "--output", "OUT", "--tokenizer", "TOKENIZER", "--train_vocab", "99"],
        "give exactly one of them",
    ),
    "missing input": (
        ["--input", "nowhere.txt", "--tokenizer", "TOKENIZER", "--output", "OUT"],
        "no file, folder or saved dataset 'nowhere.txt'",
    ),
    "missing tokenizer": (
        ["--input", "GOOD", "--tokenizer", "/nowhere", "--output", "OUT"],
        "no tokenizer at '/nowhere'",
    ),
    "bad record": (
        ["--input", "BAD", "--tokenizer", "TOKENIZER", "--output", "OUT"],
        "1 of 2 records, 50.00%, gave no document (1 bad_json)",
    ),
    "no text": (
        ["--input", "EMPTY", "--tokenizer", "TOKENIZER", "--output", "OUT"],
        "1 of 1 records, 100.00%, gave no document (1 empty)",
    ),
    "vocabulary too small": (
        ["--input", "GOOD", "--train_vocab", "9", "--output", "OUT"],
        "--train_vocab 9 is too small",
    ),
    "nothing to verify": (["--verify", "nowhere/x"], "no corpus at 'nowhere/x'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_one_line_and_leaves_nothing(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture, case: str
) -> None:
    arguments, message = ERRORS[case]
    places = {
        "GOOD": write_jsonl(tmp_path / "good.jsonl", ["the student"]),
        "EMPTY": write_jsonl(tmp_path / "empty.jsonl", [" "]),
        "BAD": str(tmp_path / "bad.jsonl"),
        "TOKENIZER": str(tokenizer_folder),
        "OUT": str(tmp_path / "out" / "x"),
    }
    Path(places["BAD"]).write_text('{"text": "fine"}\n{"text": \n')
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    written = capsys.readouterr().err
    last = written.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in written
    # Work that is done is kept in x.parts, and bad records are named; nothing looks like a corpus.
    assert not [path for path in tmp_path.glob("out/*") if path.name not in ("x.parts", "x.bad.jsonl")]
    assert case in ("bad record", "no text") or not list(tmp_path.glob("out/*"))


def test_verify_finds_a_flipped_byte(tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", random_texts(20))
    assert run("--input", source, "--tokenizer", tokenizer_folder, "--output", tmp_path / "x", "--workers", "1") == 0
    assert run("--verify", tmp_path / "x") == 0
    assert "intact" in capsys.readouterr().out
    for suffix in (".bin", ".idx"):
        path = tmp_path / f"x{suffix}"
        content = path.read_bytes()
        path.write_bytes(content[:44] + bytes([content[44] ^ 1]) + content[45:])
        assert run("--verify", tmp_path / "x") == 2
        assert f"x{suffix}" in capsys.readouterr().err
        path.write_bytes(content)
    assert run("--verify", tmp_path / "x") == 0


def command(*arguments: str | Path, prologue: str = "") -> subprocess.Popen[str]:
    """The command in its own process, with an optional shell line before it."""
    words = " ".join(f"'{argument}'" for argument in arguments)
    return subprocess.Popen(
        ["bash", "-c", f"{prologue} exec '{sys.executable}' -m data.prepare {words}"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the suite in the background makes it, and its children, ignore an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_help_is_instant_and_needs_nothing_heavy() -> None:
    script = "import sys; from data.prepare import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "--train_vocab" in done.stdout
    for module in ("torch", "tokenizers", "numpy", "transformers"):
        assert f"'{module}'" not in done.stdout


def test_a_full_disk_is_one_line_and_what_was_done_is_kept(tmp_path: Path, tokenizer_folder: Path) -> None:
    """A limit on the size of files stands for the disk."""
    source = write_jsonl(tmp_path / "a.jsonl", random_texts(3000))
    arguments = ["--input", source, "--tokenizer", tokenizer_folder, "--output", tmp_path / "out/x", "--workers", "1"]
    process = command(*arguments, prologue="ulimit -f 100;")  # 100 KiB
    _, written = process.communicate(timeout=60)
    assert process.returncode == 2
    assert written.strip().startswith("error: ")
    assert "File too large" in written
    assert len(written.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out/x.[!p]*"))
    assert run(*arguments) == 0
    assert run("--verify", tmp_path / "out/x") == 0
    assert not (tmp_path / "out/x.parts").exists()
