"""Blends against plain lists of their corpora's sequences, and against the promises that weights make."""

import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.batch import make_batch
from data.batching import Blend, Corpus, UpdateWindows
from data.blend import BLOCK
from data.blend_checks import check_held_out
from data.blend_report import contributions, epochs_by_name, repetitions
from data.shuffle import permute
from data.sidecar import SplitFacts, read_sidecar, write_sidecar
from tests.data.helpers import documents_of, load_updates, random_documents, sequences_of, write_corpus

LENGTH = 32
WEIGHTS = (0.2, 0.7, 0.1)
DOCUMENTS = {"wiki": 90, "books": 40, "code": 7}


def change(prefix: Path, **fields: Any) -> None:
    """Facts of a corpus's sidecar."""
    sidecar = read_sidecar(prefix)
    assert sidecar
    write_sidecar(prefix, replace(sidecar, **fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blend")
    for seed, (name, number) in enumerate(DOCUMENTS.items()):
        write_corpus(folder / name, random_documents(number, longest=90 - 20 * seed, seed=seed))
    return folder


@pytest.fixture(scope="module")
def corpora(folder: Path) -> list[Corpus]:
    return [Corpus.open(folder / name, max_length=LENGTH) for name in DOCUMENTS]


@pytest.fixture(scope="module")
def natural(corpora: list[Corpus]) -> Blend:
    return Blend(corpora)


@pytest.fixture(scope="module")
def weighted(corpora: list[Corpus]) -> Blend:
    return Blend(corpora, WEIGHTS)


def streamed(blend: Blend, first: int, last: int, seed: int = 5) -> list[tuple[int, int, int]]:
    """(corpus, epoch, sequence in it) at the positions [first, last)."""
    epochs, ids = blend.stream(np.arange(first, last), seed=seed)
    return list(
        zip(*(column.tolist() for column in (*blend.locate(ids)[:1], epochs, blend.locate(ids)[1])), strict=True)
    )


def test_global_ids_are_the_corpora_one_after_the_other(natural: Blend, corpora: list[Corpus]) -> None:
    expected = []
    for corpus in corpora:
        tokens, cu_seqlens = corpus.packed(np.arange(corpus.num_sequences))
        expected += [piece.tolist() for piece in np.split(tokens, cu_seqlens[1:-1])]
    assert natural.num_sequences == len(expected)
    order = np.random.default_rng(0).permutation(len(expected))
    for ids in (order, order[:1], np.arange(3), np.array([0, len(expected) - 1, 0])):
        tokens, cu_seqlens = natural.packed(ids)
        assert [piece.tolist() for piece in np.split(tokens, cu_seqlens[1:-1])] == [expected[i] for i in ids]
        assert natural.lengths(ids).tolist() == np.diff(cu_seqlens).tolist()
    for bad in (-1, natural.num_sequences):
        with pytest.raises(ValueError, match="not all within"):
            natural.lengths([bad])


def test_a_single_corpus_streams_as_its_shuffle(corpora: list[Corpus]) -> None:
    """With a weight too, which says nothing where there is no other."""
    size = corpora[0].num_sequences
    positions = np.arange(2 * size + 9)
    expected = [permute(positions[positions // size == e] % size, size, seed=5, epoch=e).tolist() for e in range(3)]
    for blend in (Blend(corpora[:1]), Blend(corpora[:1], [0.2])):
        epochs, ids = blend.stream(positions, seed=5)
        assert ids.tolist() == [i for epoch in expected for i in epoch]
        assert epochs.tolist() == (positions // size).tolist()
        assert blend.identity() == {"corpora": [f"{corpora[0].sha256} {corpora[0].index_sha256}"], "weights": []}
        assert epochs_by_name(blend, 9) == {}


def test_without_weights_an_epoch_is_every_sequence_of_every_corpus(natural: Blend) -> None:
    number = natural.num_sequences
    everything = {(which, i) for which, corpus in enumerate(natural.corpora) for i in range(corpus.num_sequences)}
    orders = []
    for epoch in range(3):
        found = streamed(natural, epoch * number, (epoch + 1) * number)
        assert {one[1] for one in found} == {epoch}
        assert {(which, i) for which, _, i in found} == everything
        orders.append(found)
        halves = Counter(which for which, _, _ in found[: number // 2])
        for which, corpus in enumerate(natural.corpora):  # mixed, not one after the other
            assert abs(halves[which] - corpus.num_sequences / 2) < 4 * np.sqrt(corpus.num_sequences)
    assert [one[2] for one in orders[0]] != [one[2] for one in orders[1]]


@pytest.mark.parametrize("weights", [WEIGHTS, (7, 2.5, 0.5), (1, 1, 1), (1e300, 2e300, 3e300), (99998.6, 0.7, 0.7)])
def test_a_block_has_each_corpus_in_its_proportion(corpora: list[Corpus], weights: tuple[float, ...]) -> None:
    blend = Blend(corpora, weights)
    total = sum(map(Fraction, weights))
    for block in (0, 1, 10**7):
        _, ids = blend.stream(np.arange(block * BLOCK, (block + 1) * BLOCK), seed=5)
        found = np.bincount(blend.locate(ids)[0])
        for which, weight in enumerate(weights):
            assert abs(found[which] - BLOCK * Fraction(weight) / total) <= 1
            assert found[which] == round(BLOCK * blend.shares[which])
    assert found.sum() == BLOCK


def test_a_corpus_has_its_epochs_one_after_the_other(weighted: Blend, corpora: list[Corpus]) -> None:
    """Whatever the other corpora do: each epoch is its sequences, each once, in another order every time."""
    epochs, ids = weighted.stream(np.arange(BLOCK + 5000), seed=5)  # past a block's end
    which, local = weighted.locate(ids)
    for number, corpus in enumerate(corpora):
        size, own = corpus.num_sequences, which == number
        assert epochs[own].tolist() == [turn // size for turn in range(own.sum())]
        orders = local[own][: own.sum() // size * size].reshape(-1, size)
        assert len(orders) > 10
        assert (np.sort(orders, axis=1) == np.arange(size)).all()
        assert len({tuple(order) for order in orders.tolist()}) == len(orders)


def test_corpora_and_seeds_have_shuffles_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        write_corpus(tmp_path / str(number), [np.array([5 + number, word]) for word in range(5, 65)])
    twins = Blend.open([f"{tmp_path / '0'}:1", f"{tmp_path / '1'}:1"], max_length=LENGTH)
    orders = [
        [i for which, _, i in streamed(twins, 0, 120, seed=seed) if which == number]
        for seed in (5, 6)
        for number in (0, 1)
    ]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("update", [24, 256, 4096])
def test_every_update_has_its_share_of_each_corpus(corpora: list[Corpus], update: int) -> None:
    """To within K sequences, which is far inside the error of a random draw."""
    for weights in (WEIGHTS, (1, 1, 1), (0.98, 0.01, 0.01)):
        blend = Blend(corpora, weights)
        _, ids = blend.stream(np.arange(30 * 4096), seed=5)
        stream = blend.locate(ids)[0].reshape(-1, update)
        for which in range(3):
            counts = (stream == which).sum(axis=1)
            assert np.abs(counts - update * blend.shares[which]).max() <= len(weights)


def test_windows_of_a_blend_depend_on_nothing_but_their_number(weighted: Blend, natural: Blend) -> None:
    """Ranks, micro-batches, where a run resumes, and windows that were left out before."""
    for blend in (weighted, natural):
        windows = UpdateWindows(blend, sequences_per_update=24, seed=3, mask_probability=0.15)
        masker = blend.masker(seed=3, probability=0.15, smoothing=0.7)
        expected = []
        for update in (40, 41):
            window = windows.window(update)
            batch = make_batch(blend, masker, window.sequence_ids, window.epochs)
            assert (window.attended, window.masked) == (batch.num_tokens, len(batch.masked_labels))
            assert len(set(window.epochs.tolist())) > (blend is weighted)
            expected.append(sorted(sequences_of(batch)))
        for num_ranks, micro_batch in ((1, 24), (1, 4), (2, 6), (4, 3), (8, 1)):
            ranks = [
                load_updates(windows, 40, 42, rank=rank, num_ranks=num_ranks, micro_batch=micro_batch)
                for rank in range(num_ranks)
            ]
            for number in range(2):
                batches = [batch for loaded in ranks for batch in loaded[number][1]]
                assert sorted(sequence for batch in batches for sequence in sequences_of(batch)) == expected[number]
        windows.left_out = (7, 40)
        assert windows.window(39).sequence_ids.tolist() == load_updates(windows, 39, 40)[0][0].sequence_ids.tolist()
        moved = windows.window(39)
        windows.left_out = ()
        assert moved.sequence_ids.tolist() == windows.window(41).sequence_ids.tolist()


def test_masking_weighs_tokens_by_how_often_they_are_read(
    weighted: Blend, natural: Blend, corpora: list[Corpus]
) -> None:
    positions = 50_000
    _, ids = weighted.stream(np.arange(positions), seed=0)
    tokens, cu_seqlens = weighted.packed(ids)
    text = np.delete(tokens, np.concatenate([cu_seqlens[:-1], cu_seqlens[1:] - 1]))
    read = np.bincount(text, minlength=weighted.vocab_size) * weighted.num_sequences / positions
    np.testing.assert_allclose(weighted.token_counts, read, rtol=0.02)
    separate = [corpus.dataset.token_counts() for corpus in corpora]
    assert natural.token_counts.tolist() == sum(separate).tolist()
    assert Blend(corpora[:1]).token_counts.tolist() == separate[0].tolist()
    assert not np.allclose(weighted.token_counts, sum(separate), rtol=0.05)


def test_what_decides_the_stream_is_its_identity(corpora: list[Corpus]) -> None:
    identity = Blend(corpora, WEIGHTS).identity()
    assert Blend(corpora, [20, 70, 10]).identity() == identity
    assert identity["weights"] == pytest.approx(WEIGHTS)
    others = [Blend(corpora), Blend(corpora[:2]), Blend(corpora, [2, 6, 2]), Blend(corpora[::-1], WEIGHTS[::-1])]
    assert all(other.identity() != identity for other in others)


def test_a_sequence_is_named_by_its_corpus_and_document(weighted: Blend, folder: Path) -> None:
    sizes = [corpus.num_sequences for corpus in weighted.corpora]
    documents = [
        number for number, tokens in enumerate(documents_of(weighted.corpora[2].dataset)) for _ in pieces(tokens)
    ]
    assert weighted.describe([sizes[0] + sizes[1] + 8, 0, sizes[0]]) == {
        "corpus": [str(folder / "code"), str(folder / "wiki"), str(folder / "books")],
        "document": [documents[8], 0, 0],
        "sequence": [8, 0, 0],
    }
    assert 0 < documents[8] < 8


def pieces(tokens: list[int]) -> range:
    """Where a document is cut."""
    return range(0, len(tokens), LENGTH - 2)


def test_the_report_is_what_the_stream_holds(weighted: Blend, natural: Blend) -> None:
    """Of a run of 30,000 sequences: counted in its stream, against the lines that are printed before it."""
    for blend in (weighted, natural):
        _, ids = blend.stream(np.arange(30_000), seed=1)
        which, lengths = blend.locate(ids)[0], blend.lengths(ids)
        lines = list(contributions(blend, 30_000))
        assert len(lines) == 3
        for number, (line, corpus) in enumerate(zip(lines, blend.corpora, strict=True)):
            found = re.fullmatch(
                r"(\S+): ([\d,]+) documents, ([\d,]+) sequences, ([\d,]+) tokens; ([\d.]+)% of the sequences: "
                r"([\d,]+) tokens in this run, ([\d.]+) epochs",
                line,
            )
            assert found
            documents, sequences, tokens, share, in_run, epochs = (
                float(t.replace(",", "")) for t in found.groups()[1:]
            )
            everything = int(corpus.lengths(np.arange(corpus.num_sequences)).sum())
            assert (documents, sequences, tokens) == (corpus.dataset.num_documents, corpus.num_sequences, everything)
            own = which == number
            assert share == pytest.approx(100 * own.mean(), abs=0.1)
            assert in_run == pytest.approx(lengths[own].sum(), rel=0.02)
            assert epochs == pytest.approx(own.sum() / corpus.num_sequences, rel=0.02)
    assert epochs_by_name(natural, 9) == {}
    assert list(epochs_by_name(weighted, BLOCK)) == ["epoch_wiki", "epoch_books", "epoch_code"]
    assert epochs_by_name(weighted, BLOCK)["epoch_code"] == 0.1 * BLOCK / weighted.corpora[2].num_sequences


def test_text_that_is_repeated_often_is_named(weighted: Blend) -> None:
    passes = [int(4 * corpus.num_sequences / share) for corpus, share in zip(weighted.corpora, WEIGHTS, strict=True)]
    assert list(repetitions(weighted, min(passes))) == []
    [warning] = repetitions(weighted, sorted(passes)[1])
    assert warning.startswith(weighted.prefixes[int(np.argmin(passes))])
    assert "Muennighoff" in warning
    assert len(list(repetitions(weighted, max(passes) + 50))) == 3


def test_corpora_that_do_not_go_together_are_refused(corpora: list[Corpus], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--data .*code:0\.001 is less than one sequence in 100,000"):
        Blend(corpora, [200.0, 200.0, 0.001])
    for name in ("same", "other", "kept"):
        write_corpus(tmp_path / name, random_documents(DOCUMENTS["wiki"], longest=90, seed=0 if name == "same" else 9))
    texts = [str(folder / "wiki"), str(tmp_path / "same")]
    with pytest.raises(ValueError, match=r"--data .*same has the same contents as .*wiki: name the corpus once"):
        Blend.open(texts, max_length=LENGTH)
    sidecar = read_sidecar(tmp_path / "other")
    assert sidecar
    change(tmp_path / "other", tokenizer=replace(sidecar.tokenizer, fingerprint="another"))
    with pytest.raises(ValueError, match=r"--data .*wiki and .*other were prepared with different vocabularies"):
        Blend.open([f"{texts[0]}:1", f"{tmp_path / 'other'}:1"], max_length=LENGTH)
    change(tmp_path / "kept", split=SplitFacts(part="heldout", share=0.1))
    with pytest.raises(ValueError, match=r"--data .*kept is the held-out part .* never trained on"):
        Blend.open([texts[0], str(tmp_path / "kept")], max_length=LENGTH)
    with pytest.raises(FileNotFoundError, match=r"no corpus at '.*none'"):
        Blend.open([texts[0], str(tmp_path / "none")], max_length=LENGTH)
    with pytest.raises(
        FileNotFoundError, match=r"'0,7' is no number, so .*wiki:0,7 is a name without a weight, and no corp"
    ):
        Blend.open([f"{texts[0]}:0,7"], max_length=LENGTH)


def opened(prefix: Path, part: str, share: float) -> Corpus:
    change(prefix, split=SplitFacts(part=part, share=share))
    return Corpus.open(prefix, max_length=LENGTH)


def test_what_is_held_out_is_not_what_is_trained_on(corpora: list[Corpus], tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "heldout")):
        write_corpus(tmp_path / name, random_documents(20, longest=60, seed=40 + seed))
    train, heldout = tmp_path / "train", tmp_path / "heldout"
    for text in ("--eval_data", "same contents as --data"):
        with pytest.raises(ValueError, match=text):
            check_held_out(Corpus.open(corpora[1].dataset.prefix, max_length=LENGTH), corpora)
    with pytest.raises(ValueError, match=r"--eval_data .*heldout is the part of a corpus that is for training"):
        check_held_out(opened(heldout, "train", 0.1), corpora)
    assert check_held_out(opened(heldout, "all", 0.0), corpora) == []
    for share, suspects in ((0.1, 0), (0.2, 0), (0.05, 1)):  # a larger share holds out all of a smaller one
        trained = [opened(train, "train", share)]
        assert len(check_held_out(opened(heldout, "heldout", 0.1), trained)) == suspects
        warnings = check_held_out(opened(heldout, "heldout", 0.1), [*trained, corpora[0]])
        assert len(warnings) == suspects + 1
        assert f"--data {corpora[0].dataset.prefix} was not prepared without the held-out 0.1" in warnings[-1]
    sidecar = read_sidecar(heldout)
    assert sidecar
    change(heldout, tokenizer=replace(sidecar.tokenizer, fingerprint="another"))
    with pytest.raises(ValueError, match=r"--eval_data .* different vocabularies"):
        check_held_out(Corpus.open(heldout, max_length=LENGTH), corpora)
