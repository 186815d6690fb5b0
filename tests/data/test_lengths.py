"""Lengths against a plain list of them, and memory that does not grow with the corpus."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bench.open_corpus import write_corpus as write_sparse_corpus
from data import index_file, lengths
from data.indexed_dataset import IndexedDataset
from data.lengths import Lengths, bin_edges, measure_lengths
from tests.data.helpers import random_documents, write_corpus


def measured(prefix: Path, documents: list[np.ndarray], max_length: int) -> Lengths:
    write_corpus(prefix, documents)
    return measure_lengths(IndexedDataset(prefix), max_length)


@pytest.mark.parametrize("max_length", [3, 9, 512])
def test_lengths_are_those_of_the_documents(tmp_path: Path, max_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (index_file, lengths):
        monkeypatch.setattr(module, "BLOCK", 64)  # several blocks, the last of them not full
    documents = random_documents(200, longest=90)
    documents[7] = np.empty(0, dtype=np.int64)
    documents[130] = np.full(70_000, 9)
    found = measured(tmp_path / "x", documents, max_length)
    piece = max_length - 2
    sequences = [
        (number, first, min(piece, len(document) - first))
        for number, document in enumerate(documents)
        for first in range(0, len(document), piece)
    ]
    assert found.num_sequences == len(sequences)
    assert (found.longest, found.longest_document) == (70_000, 130)
    expected = np.bincount([tokens + 2 for _, _, tokens in sequences], minlength=max_length + 1)
    assert found.sequence_counts.tolist() == expected.tolist()
    starts = np.cumsum([0, *map(len, documents)])
    for at in (0, 1, len(sequences) // 2, len(sequences) - 1):
        place = found.locate(at)
        assert (place.document, place.first, place.tokens) == sequences[at]
        assert place.start == starts[place.document] + place.first
        assert place.document_tokens == len(documents[place.document])
    for document in (0, 7, 64, 130, 199):
        assert list(found.of_document(document)) == [n for n, row in enumerate(sequences) if row[0] == document]
    for bad in (-1, len(sequences)):
        with pytest.raises(ValueError, match=f"no sequence {bad}: .*numbered from 0"):
            found.locate(bad)
    with pytest.raises(ValueError, match="no document 200: "):
        found.of_document(200)


def test_quantiles_and_bins(tmp_path: Path) -> None:
    sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 70_000, 131_071, 131_072]
    found = measured(tmp_path / "x", [np.full(size, 9) for size in sizes], 512)
    assert [found.quantile(share) for share in (0.0, 0.5, 0.75)] == [0, 5, 8]
    assert 130_900 <= found.quantile(0.9) <= 131_071  # to a thousandth of its length
    assert found.quantile(1.0) == 131_072
    rows = [row for row in found.by_power_of_two() if row[2]]
    expected = [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 4), (8, 15, 1), (65_536, 131_071, 2), (131_072, 262_143, 1)]
    assert rows == expected


def test_every_length_falls_into_the_bin_that_starts_at_or_below_it() -> None:
    edges = bin_edges()
    assert (np.diff(edges) > 0).all()
    powers = np.array([1 << e for e in range(50)])
    for values in (powers, powers - 1, powers + 1, np.random.default_rng(0).integers(0, 2**45, 1000)):
        assert np.array_equal(lengths._bins(values), np.searchsorted(edges, values, side="right") - 1)


def test_padding_is_what_random_batches_would_waste(tmp_path: Path) -> None:
    found = measured(tmp_path / "x", random_documents(300, longest=90), 64)
    sizes = np.repeat(np.arange(65), found.sequence_counts)
    batches = np.random.default_rng(0).choice(sizes, (20_000, 8))
    wasted = 1 - batches.sum() / (8 * batches.max(axis=1)).sum()
    assert found.padding_share(8) == pytest.approx(wasted, abs=0.003)
    assert found.padding_share() == pytest.approx(1 - sizes.mean() / 64)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peaks = []
    for number in (1_000_000, 4_000_000):
        write_sparse_corpus(tmp_path / "x", number)
        dataset = IndexedDataset(tmp_path / "x")
        tracemalloc.start()
        assert measure_lengths(dataset, 512).document_bins.sum() == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 8 * 4_000_000
