"""Differences per token against transformers with full logits in float64, and tokens as people read them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from data.batching import Corpus, FixedBatches, fixed_batches
from data.corpus import Masker
from data.tokenizer import Tokenizer, load_tokenizer
from evaluation.report.disagreement import Disagreement, Words, find_disagreement, token_nats
from model.hub import load_model, save_model
from model.kernels.vocab_loss import CHUNK_TOKENS
from model.student import make_student
from tests.conftest import Toy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def student(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair") / "student"
    model = make_student(load_model(toy.teacher), dropout=0.0)
    save_model(model, folder, "distilbert", model.state_dict())
    return folder


def read(toy: Toy) -> tuple[Corpus, FixedBatches, Masker]:
    corpus = Corpus.open(toy.heldout, max_length=40)
    batches = fixed_batches(
        corpus,
        num_sequences=24,
        sequences_per_batch=5,
        seed=0,
        rank=0,
        num_ranks=1,
        mask_probability=0.15,
        mask_smoothing=0.7,
    )
    return corpus, batches, corpus.masker(seed=0, probability=0.15, smoothing=0.7)


def find(toy: Toy, student: Path, num_sentences: int) -> Disagreement:
    corpus, batches, masker = read(toy)
    return find_disagreement(
        load_model(student), load_model(toy.teacher), corpus, batches, masker, num_sentences=num_sentences, device=CPU
    )


@pytest.fixture(scope="module")
def whole(toy: Toy, student: Path) -> Disagreement:
    """All sequences."""
    return find(toy, student, num_sentences=24)


Exact = dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def exact(toy: Toy, student: Path) -> Exact:
    """By sequence: KL(teacher || student) of each token, and both models' probabilities, in float64."""
    _, batches, _ = read(toy)
    teacher = AutoModelForMaskedLM.from_pretrained(toy.teacher).double().eval()
    own = AutoModelForMaskedLM.from_pretrained(student).double().eval()
    found = {}
    for batch in batches:
        bounds = itertools.pairwise(batch.cu_seqlens.tolist())
        for number, (start, stop) in zip(batch.sequence_ids.tolist(), bounds, strict=True):
            ids = batch.token_ids[start:stop][None]
            with torch.no_grad():
                p, q = teacher(input_ids=ids).logits[0].softmax(-1), own(input_ids=ids).logits[0].softmax(-1)
            found[number] = (p * (p.log() - q.log())).sum(-1), p, q
    return found


def test_differences_equal_a_full_softmax_in_float64(toy: Toy, student: Path, exact: Exact) -> None:
    _, batches, _ = read(toy)
    own, teacher = load_model(student), load_model(toy.teacher)
    for batch in batches:
        nats = token_nats(own, teacher, batch)
        wanted = torch.cat([exact[number][0] for number in batch.sequence_ids.tolist()])
        assert nats.tolist() == pytest.approx(wanted.tolist(), rel=1e-4, abs=1e-6)
        assert wanted.max() > 0.05  # they do differ


def test_a_model_does_not_differ_from_itself(toy: Toy) -> None:
    _, batches, _ = read(toy)
    teacher = load_model(toy.teacher)
    nats = token_nats(teacher, teacher, next(iter(batches)))
    assert nats.min() >= 0.0
    assert nats.max() < 1e-6


def test_differences_do_not_depend_on_the_chunks(
    toy: Toy, student: Path, whole: Disagreement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_TOKENS, "cpu", 33)
    parts = find(toy, student, num_sentences=3)
    assert parts.nats == pytest.approx(whole.nats, rel=1e-4, abs=1e-6)
    assert [s.number for s in parts.sentences] == [s.number for s in whole.sentences[:3]]


def test_the_sentences_with_the_largest_means_come_first(whole: Disagreement, exact: Exact) -> None:
    means = {number: nats.mean().item() for number, (nats, _, _) in exact.items()}
    wanted = sorted(means, key=lambda number: -means[number])
    assert [sentence.number for sentence in whole.sentences] == wanted
    assert [sentence.mean for sentence in whole.sentences] == pytest.approx([means[n] for n in wanted], rel=1e-3)
    assert whole.num_sequences == len(means)
    assert len(whole.nats) == sum(len(nats) for nats, _, _ in exact.values())


def test_a_sentence_shows_its_text_its_masks_and_what_both_expect(toy: Toy, whole: Disagreement, exact: Exact) -> None:
    corpus, batches, _ = read(toy)
    tokenizer = corpus.load_tokenizer()
    read_and_true = {}
    for batch in batches:
        true = batch.token_ids.clone()
        true[batch.masked_positions] = batch.masked_labels
        masked = torch.zeros(len(true), dtype=torch.bool)
        masked[batch.masked_positions] = True
        for number, (a, b) in zip(batch.sequence_ids.tolist(), itertools.pairwise(batch.cu_seqlens), strict=True):
            read_and_true[number] = true[a:b].tolist(), masked[a:b].tolist()
    for sentence in whole.sentences:
        true, masked = read_and_true[sentence.number]
        nats, teacher, own = exact[sentence.number]
        text = "".join(f" {t.text}" if t.begins_word else t.text for t in sentence.tokens)
        assert text.replace(" ", "") == tokenizer.decode(true).replace(" ", "")
        assert [token.is_masked for token in sentence.tokens] == masked
        assert [token.nats for token in sentence.tokens] == pytest.approx(nats.tolist(), rel=1e-3, abs=1e-6)
        for token, label, p, q in zip(sentence.tokens, true, teacher, own, strict=True):
            for guesses, probabilities in ((token.teacher, p), (token.student, q)):
                best = probabilities.topk(3)
                assert [guess.probability for guess in guesses] == pytest.approx(best.values.tolist(), rel=1e-3)
                assert [guess.is_true for guess in guesses] == [i == label for i in best.indices.tolist()]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    ids = tokenizer.encode_batch([text])[0].tolist()
    return Words(tokenizer).in_a_row([tokenizer.cls_id, *ids, tokenizer.sep_id])


def test_pieces_of_wordpiece_join_without_marks(toy: Toy) -> None:
    tokenizer = load_tokenizer(str(toy.teacher))
    pieces = words_of(tokenizer, "the balanret sees xq .")
    assert "##" not in "".join(pieces)
    assert "".join(pieces[1:-1]).split()[:3] == ["the", "balanret", "sees"]
    words = Words(tokenizer)
    vocabulary = (toy.teacher / "vocab.txt").read_text().splitlines()
    continuing = next(i for i, token in enumerate(vocabulary) if token.startswith("##") and token[2:].isalnum())
    assert words.alone(continuing) == f"…{vocabulary[continuing][2:]}"
    assert words.alone(vocabulary.index("the")) == "the"
    assert words.alone(tokenizer.mask_id) == "[MASK]"


def test_bytes_of_a_character_that_is_cut_do_not_break_the_text(tmp_path: Path) -> None:
    """Byte-level BPE without merges: every byte is a token, and é is two of them."""
    from tokenizers import pre_tokenizers

    from data.tokenizer import byte_level_bpe

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = byte_level_bpe(vocabulary, [], {}, {}, "test")
    pieces = words_of(tokenizer, "a é\u0007<b> z")
    assert pieces[0] == " <s>"
    assert pieces[1] == "a"
    assert any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert all(piece.isprintable() for piece in pieces)
    assert [len(Words(tokenizer).alone(i)) > 0 for i in range(tokenizer.vocab_size)].count(False) == 0


def test_a_token_that_the_tokenizer_does_not_know_is_its_number(toy: Toy) -> None:
    tokenizer = load_tokenizer(str(toy.teacher))
    assert str(tokenizer.vocab_size + 5) in Words(tokenizer).alone(tokenizer.vocab_size + 5)


def test_means_are_those_of_the_tokens(whole: Disagreement) -> None:
    lengths = [len(sentence.tokens) for sentence in whole.sentences]
    total = sum(sentence.mean * length for sentence, length in zip(whole.sentences, lengths, strict=True))
    assert total == pytest.approx(float(np.sum(whole.nats)), rel=1e-5)
    assert sum(token.is_masked for s in whole.sentences for token in s.tokens) == whole.is_masked.sum()
