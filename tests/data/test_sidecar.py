"""PREFIX.json is believed only where it is possible, and names nothing outside its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.batching import Corpus
from data.sidecar import read_sidecar
from data.verify import verify
from tests.data.helpers import CLS, MASK, SEP, VOCAB_SIZE, random_documents, write_corpus

SPECIAL = [0, 1, 2, 3, 4]


def change(prefix: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = Path(f"{prefix}.json")
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 0, "int32"),
        ("vocab_size", 2**31, "int32"),
        ("vocab_size", 4, "within the vocabulary"),
        ("cls_id", VOCAB_SIZE, "not among special_ids"),
        ("sep_id", -1, "not among special_ids"),
        ("mask_id", 2**63, "not among special_ids"),
        ("pad_id", 7, "not among special_ids"),
        ("mask_id", CLS, "must be three tokens"),
        ("sep_id", CLS, "must be three tokens"),
        ("special_ids", [*SPECIAL, MASK], "must be different"),
        ("special_ids", [*SPECIAL, VOCAB_SIZE], "within the vocabulary"),
        ("special_ids", [*SPECIAL, -1], "within the vocabulary"),
        ("special_ids", list(range(VOCAB_SIZE)), "no token is left"),
        ("special_ids", [0, 1, 2, 3, True], "not list"),
        ("special_ids", {"0": 1}, "not list"),
        ("cls_id", float(CLS), "not int"),
        ("cls_id", [SEP], "not int"),
    ],
)
def test_ids_that_cannot_be_are_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    change(tmp_path / "x", lambda record: record["tokenizer"].update({field: value}))
    with pytest.raises(ValueError, match=rf"x\.json: tokenizer\.(special_ids|mask_id|{field}) is .*{message}"):
        Corpus.open(tmp_path / "x", max_length=32)


@pytest.mark.parametrize(
    "files", ["", ".", "..", "../x.tokenizer", "/etc", "a/b", "x.tokenizer/", "x\x00", "a\nb", "\ud800", "\u202ex"]
)
def test_a_tokenizer_folder_must_be_a_name_beside_the_corpus(tmp_path: Path, files: str) -> None:
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    change(tmp_path / "x", lambda record: record["tokenizer"].update(files=files))
    with pytest.raises(ValueError, match=r"x\.json: tokenizer\.files is .*name of a folder beside"):
        read_sidecar(tmp_path / "x")


@pytest.mark.parametrize("linked", ["folder", "tokenizer.json", "special_tokens_map.json"])
def test_links_in_place_of_the_tokenizer_are_refused(tmp_path: Path, linked: str) -> None:
    """Else a corpus could have any file of the machine copied into a student that is then published."""
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    folder, outside = tmp_path / "x.tokenizer", tmp_path / "outside"
    inside = folder if linked == "folder" else folder / linked
    inside.rename(outside)
    inside.symlink_to(outside)
    corpus = Corpus.open(tmp_path / "x", max_length=32)
    for read in (corpus.load_tokenizer, lambda: verify(tmp_path / "x")):
        with pytest.raises(ValueError, match=rf"{inside} is a link"):
            read()


def test_the_tokenizer_of_another_corpus_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    vocabulary = tmp_path / "x.tokenizer" / "vocab.txt"
    (tmp_path / "x.tokenizer" / "tokenizer.json").unlink()
    vocabulary.write_text(vocabulary.read_text().replace("word7", "another"))
    with pytest.raises(ValueError, match=r"x\.tokenizer: fingerprint is .*x\.json says"):
        verify(tmp_path / "x")
    shutil.rmtree(tmp_path / "x.tokenizer")
    with pytest.raises(FileNotFoundError, match=r"x\.tokenizer, the tokenizer that .*x\.json names, is missing"):
        verify(tmp_path / "x")


def test_a_tokenizer_that_asks_for_remote_code_is_read_without_it(tmp_path: Path) -> None:
    """And the student's folder, written from what was read, does not ask for it either."""
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    folder = tmp_path / "x.tokenizer"
    path = folder / "tokenizer_config.json"
    asking = {"auto_map": {"AutoTokenizer": ["tokenization_x.Tokenizer", None]}, "trust_remote_code": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | asking))
    (folder / "tokenization_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    tokenizer = Corpus.open(tmp_path / "x", max_length=32).load_tokenizer()
    assert not (tmp_path / "ran").exists()
    tokenizer.save(tmp_path / "student")
    assert not list((tmp_path / "student").glob("*.py"))
    assert all("auto_map" not in file.read_text() for file in (tmp_path / "student").iterdir())


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", random_documents(5, longest=20))
    path = tmp_path / "x.json"
    path.write_text(path.read_text().replace('"tokens":', '"tokens": 1, "tokens":', 1))
    with pytest.raises(ValueError, match=r"x\.json .*twice"):
        read_sidecar(tmp_path / "x")


def test_values_that_json_cannot_hold_sensibly_are_refused_by_name(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "9" * 5000, "1e999", "NaN", "\xff", '{"version":' * 500 + "1" + "}" * 500):
        (tmp_path / "x.json").write_bytes(b'{"version": ' + text.encode("latin-1") + b"}")
        with pytest.raises(ValueError, match=r"x\.json") as raised:
            read_sidecar(tmp_path / "x")
        assert len(str(raised.value)) < 1000


def test_token_counts_that_do_not_sum_to_the_tokens_are_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [np.full(50, 10)])
    corpus = Corpus.open(tmp_path / "x", max_length=32)
    for counts in (np.full(VOCAB_SIZE, 2**63 - 1), np.arange(-VOCAB_SIZE, 0), np.zeros(VOCAB_SIZE, dtype=np.int64)):
        np.save(tmp_path / "x.token_counts.npy", counts)
        with pytest.raises(ValueError, match=r"x\.token_counts\.npy does not count the 50 tokens"):
            corpus.masker(seed=0, probability=0.15, smoothing=0.7)
