"""What is left out of a corpus, against rules written out document by document."""

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data import merge
from data.cleaning import digests_of, is_held_out, kept_documents
from data.indexed_dataset import IndexedDataset
from data.prepare import main
from data.prepare_config import CleaningConfig
from data.tokenizer import Tokenizer
from tests.data.helpers import documents_of, random_texts

UNKNOWN = 1


def test_documents_are_dropped_for_the_first_reason_that_holds() -> None:
    documents = [[], [5], [5, 6], [5, UNKNOWN], [UNKNOWN, UNKNOWN, 5], [5, 6, UNKNOWN], []]
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    kept, dropped = kept_documents(tokens, lengths, UNKNOWN, CleaningConfig(min_tokens=2, max_unknown_share=0.5))
    assert kept.tolist() == [False, False, True, False, False, True, False]
    assert dropped == {"no_tokens": 2, "short": 1, "unknown": 2}


def test_everything_but_documents_without_a_known_token_stays_at_a_share_of_one() -> None:
    tokens, lengths = np.array([UNKNOWN, UNKNOWN, 5, UNKNOWN]), np.array([1, 2, 1])
    kept, dropped = kept_documents(tokens, lengths, UNKNOWN, CleaningConfig(max_unknown_share=1.0))
    assert (kept.tolist(), dropped) == ([False, True, False], {"unknown": 2})


def test_held_out_documents_are_those_whose_hash_is_small() -> None:
    texts = [*random_texts(400), "é", "\U0001f600"]
    first = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()[:8], "little") for text in texts]
    for share in (0.01, 0.1, 0.5):
        expected = [number < share * 2**64 for number in first]
        assert is_held_out(digests_of(texts), share).tolist() == expected
    assert sum(expected) > 150


def prepared(tmp_path: Path, tokenizer_folder: Path, texts: list[str], *flags: object) -> IndexedDataset:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ["--input", source, "--tokenizer", tokenizer_folder, "--output", tmp_path / "x", "--workers", 1, *flags]
    assert main([str(argument) for argument in [*arguments, "--overwrite"]]) == 0
    return IndexedDataset(tmp_path / "x")


def test_exact_duplicates_and_held_out_documents_leave_the_corpus(
    tmp_path: Path, tokenizer_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "_DIGESTS_AT_ONCE", 50)  # so that digests are dealt to several files
    texts = random_texts(200)
    repeated = [*texts, *texts[50:120], "alone", texts[0], *texts[:10]]
    dataset = prepared(tmp_path, tokenizer_folder, repeated, "--deduplicate", "--heldout_share", 0.2)
    held = is_held_out(digests_of([*texts, "alone"]), 0.2)
    encoded = [ids.tolist() for ids in tokenizer.encode_batch([*texts, "alone"])]
    assert documents_of(dataset) == [ids for ids, is_held in zip(encoded, held, strict=True) if not is_held]
    heldout = IndexedDataset(tmp_path / "x-heldout")
    assert documents_of(heldout) == [ids for ids, is_held in zip(encoded, held, strict=True) if is_held]
    assert dataset.sidecar is not None
    assert heldout.sidecar is not None
    assert dataset.sidecar.dropped == {"duplicate": 81}
    assert (dataset.sidecar.split.part, heldout.sidecar.split.part) == ("train", "heldout")
    assert dataset.sidecar.split.share == heldout.sidecar.split.share == 0.2
    for part in (dataset, heldout):
        flat = np.array([token for document in documents_of(part) for token in document])
        assert np.array_equal(part.token_counts(), np.bincount(flat, minlength=tokenizer.vocab_size))


def test_texts_are_normalised_before_they_are_compared(tmp_path: Path, tokenizer_folder: Path) -> None:
    composed, decomposed = "the café of São Paulo", unicodedata.normalize("NFD", "the café of São Paulo")
    assert composed != decomposed
    assert prepared(tmp_path, tokenizer_folder, [composed, decomposed], "--deduplicate").num_documents == 2
    again = prepared(tmp_path, tokenizer_folder, [composed, decomposed], "--deduplicate", "--normalize", "NFC")
    assert again.num_documents == 1


def test_records_without_a_document_are_named(tmp_path: Path, tokenizer_folder: Path) -> None:
    dataset = prepared(tmp_path, tokenizer_folder, ["fine", "", "fine too", " "], "--max_bad_share", 0.6)
    assert dataset.sidecar is not None
    assert dataset.sidecar.dropped == {"empty": 2}
    named = [json.loads(line) for line in (tmp_path / "x.bad.jsonl").read_text().splitlines()]
    assert [(record["line"], record["reason"]) for record in named] == [(2, "empty"), (4, "empty")]
    assert named[0]["file"].endswith("a.jsonl")
    prepared(tmp_path, tokenizer_folder, ["fine"])
    assert not (tmp_path / "x.bad.jsonl").exists()


@pytest.mark.parametrize(
    "flags", [("--min_tokens", 0), ("--max_unknown_share", 0), ("--heldout_share", 0.7), ("--max_bad_share", "nan")]
)
def test_impossible_cleaning_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: tuple[str, object]
) -> None:
    assert main(["--input", "a.jsonl", "--tokenizer", "t", "--output", "x", flags[0], str(flags[1])]) == 2
    assert f"error: {flags[0]} {float(flags[1]):g}" in capsys.readouterr().err  # type: ignore[arg-type]
