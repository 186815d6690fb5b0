"""What two corpora share, against sets of tuples."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from data import index_file, overlap
from data.indexed_dataset import IndexedDataset
from data.inspect import main
from data.overlap import shared_documents, shared_shingles
from tests.data.helpers import VOCAB_SIZE, random_documents, write_corpus
from tests.data.test_indexed_dataset import write_by_hand

Documents = list[np.ndarray]


def runs(document: np.ndarray, length: int) -> list[tuple[int, ...]]:
    return [tuple(document[at : at + length].tolist()) for at in range(len(document) - length + 1)]


def overlapping_pair() -> tuple[Documents, Documents]:
    """The second has one document of the first, half of another, and 40 of its own."""
    these, others = random_documents(120, longest=90, seed=1), random_documents(40, longest=90, seed=2)
    these[50] = np.arange(5, 95)
    others.insert(3, these[7])
    others.insert(20, np.concatenate((others[0][:30], these[50][20:65])))
    others.append(np.empty(0, dtype=np.int64))
    these.append(np.empty(0, dtype=np.int64))
    return these, others


def opened(folder: Path, *corpora: Documents) -> list[IndexedDataset]:
    for number, documents in enumerate(corpora):
        write_corpus(folder / str(number), documents)
    return [IndexedDataset(folder / str(number)) for number in range(len(corpora))]


@pytest.mark.parametrize("at_once", [1 << 20, 7])
@pytest.mark.parametrize("length", [1, 2, 13, 200])
def test_shared_runs_are_those_that_both_have(
    tmp_path: Path, length: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr(index_file, "BLOCK", 32)
    these, others = overlapping_pair()
    this, other = opened(tmp_path, these, others)
    found = shared_shingles(this, other, length, VOCAB_SIZE)
    known = {run for document in these for run in runs(document, length)}
    expected = [(number, run in known) for number, document in enumerate(others) for run in runs(document, length)]
    assert found.rate == 1
    assert list(zip(found.documents.tolist(), found.found.tolist(), strict=True)) == expected
    if length == 13:
        documents, sampled, hits = found.by_document()
        assert documents[0] == 3
        assert sampled[0] == hits[0] == len(these[7]) - 12
        assert documents[1] == 20


def test_a_sample_takes_the_same_runs_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these, others = random_documents(300, longest=90, seed=1), random_documents(150, longest=90, seed=2)
    this, other = opened(tmp_path, these, [*others, *these[:150]])
    whole = shared_shingles(this, other, 13, VOCAB_SIZE)
    monkeypatch.setattr(overlap, "_MOST_SHINGLES", other.num_tokens // 5)
    part = shared_shingles(this, other, 13, VOCAB_SIZE)
    assert part.rate == 8
    assert len(part.found) == pytest.approx(len(whole.found) / 8, rel=0.15)
    assert part.found.mean() == pytest.approx(whole.found.mean(), abs=0.06)
    assert part.found[part.documents >= 150].all()  # a run that is there is never missed
    assert not part.found[part.documents < 150].any()
    assert (part.by_document()[1] >= 16).all()  # a share of a few runs says nothing


@pytest.mark.parametrize("at_once", [1 << 22, 9])
def test_shared_documents_are_equal_token_for_token(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_RECORDS_AT_ONCE", at_once)
    monkeypatch.setattr(index_file, "BLOCK", 32)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    these, others = overlapping_pair()
    others += [these[2], these[2], these[90][:-1]]
    # The same ids as int32, in two stored sequences a document.
    write_by_hand(tmp_path / "wide", [[d[:1].tolist(), d[1:].tolist()] if len(d) else [] for d in others], code=4)
    this, other = *opened(tmp_path, these), IndexedDataset(tmp_path / "wide")
    known = {tuple(document) for document in map(np.ndarray.tolist, these) if document}
    expected = [number for number, document in enumerate(others) if tuple(document.tolist()) in known]
    found = shared_documents(this, other, examples=100)
    assert found.number == len(expected)
    assert [theirs for theirs, _ in found.examples] == expected
    assert all(np.array_equal(these[ours], others[theirs]) for theirs, ours in found.examples)
    assert not list(tmp_path.glob("distillery-compare*"))


def test_the_command_says_whether_the_corpora_are_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    these, others = overlapping_pair()
    opened(tmp_path, these, others, random_documents(40, longest=90, seed=2))
    assert main([str(tmp_path / "0"), "--compare", str(tmp_path / "1")]) == 0
    written = capsys.readouterr().out
    assert "1 documents (2.33%) are there token for token" in written
    assert "document 3 is document 7" in written
    assert "is not apart from" in " ".join(written.split())
    assert main([str(tmp_path / "0"), "--compare", str(tmp_path / "2")]) == 0
    assert "is apart from" in " ".join(capsys.readouterr().out.split())


def test_other_vocabularies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    opened(tmp_path, random_documents(3, longest=9), random_documents(3, longest=9))
    record = tmp_path / "1.json"
    text = record.read_text()
    at = text.index('"fingerprint": "') + len('"fingerprint": "')
    record.write_text(f"{text[:at]}{'0' * 64}{text[at + 64 :]}")
    assert main([str(tmp_path / "0"), "--compare", str(tmp_path / "1")]) == 2
    assert "have different vocabularies" in capsys.readouterr().err
    record.unlink()
    assert main([str(tmp_path / "0"), "--compare", str(tmp_path / "1")]) == 2
    assert "nobody knows which vocabulary" in capsys.readouterr().err
