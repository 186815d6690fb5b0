"""Sequences against a plain list of them, built document by document."""

import struct
from pathlib import Path

import numpy as np
import pytest

from data.batching import Corpus
from data.corpus_writer import IndexedDatasetWriter
from data.indexed_dataset import IndexedDataset
from tests.data.helpers import CLS, SEP, VOCAB_SIZE, random_documents, write_corpus


def cut(documents: list[np.ndarray], max_length: int) -> list[list[int]]:
    piece = max_length - 2
    return [
        [CLS, *document[start : start + piece].tolist(), SEP]
        for document in documents
        for start in range(0, len(document), piece)
    ]


@pytest.mark.parametrize("max_length", [3, 4, 10, 32, 1000])
def test_sequences_are_the_documents_cut_into_pieces(tmp_path: Path, max_length: int) -> None:
    documents = [*random_documents(40, longest=60), np.arange(5, 5 + 2 * 8), np.array([7])]
    documents.insert(3, np.empty(0, dtype=np.int64))  # no sequence at all
    write_corpus(tmp_path / "x", documents)
    corpus = Corpus.open(tmp_path / "x", max_length=max_length)
    expected = cut(documents, max_length)
    assert corpus.num_sequences == len(expected)
    assert corpus.lengths(np.arange(len(expected))).tolist() == [len(sequence) for sequence in expected]

    order = np.random.default_rng(0).permutation(len(expected))
    tokens, cu_seqlens = corpus.packed(order)
    found = [piece.tolist() for piece in np.split(tokens, cu_seqlens[1:-1])]
    assert found == [expected[i] for i in order]
    assert cu_seqlens[-1] == len(tokens)


def test_sequence_ids_outside_the_corpus_are_refused(corpus: Corpus) -> None:
    for bad in (-1, corpus.num_sequences):
        with pytest.raises(ValueError, match=f"{bad}.*\\[0, {corpus.num_sequences}\\)"):
            corpus.lengths([bad])


def test_a_token_outside_the_vocabulary_is_located(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", random_documents(10, longest=60))
    path = tmp_path / "x.bin"
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 40, VOCAB_SIZE + 1)
    path.write_bytes(content)
    corpus = Corpus.open(tmp_path / "x", max_length=32)
    with pytest.raises(ValueError, match=rf"x\.bin: token id {VOCAB_SIZE + 1} at byte 40 .*--verify"):
        corpus.packed(np.arange(corpus.num_sequences))


def test_a_corpus_without_its_facts_is_readable_but_not_trainable(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "x", 100) as writer:
        writer.add_document(np.arange(9))
    dataset = IndexedDataset(tmp_path / "x")
    with pytest.raises(ValueError, match=r"x\.json is missing: .*data\.prepare"):
        Corpus(dataset, max_length=32)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x", [])
    with pytest.raises(ValueError, match="no tokens"):
        Corpus.open(tmp_path / "x", max_length=32)
