"""Where student and teacher differ most on held-out text: per token, KL(teacher || student) in nats at temperature 1.

Two passes. The first keeps one number a token and finds the sentences; the second, over those few, keeps what both expect
at every token. A (T, V) tensor is never held: both walk chunks of tokens.

Shapes: T real tokens of a batch, C of a chunk, V vocabulary, K words kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batch import Batch, make_batch
from data.batching import Corpus, FixedBatches
from data.corpus import Masker
from data.excerpts import printable
from data.tokenizer import Tokenizer
from model.bert import MaskedLanguageModel
from model.kernels.vocab_loss import CHUNK_TOKENS

KEPT = 3
"""Words of each model to show at a position."""
EMPTY = "␣"
"""Stands for a token that has no text of its own, such as a lone space."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A word and how probable a model finds it."""

    word: str
    probability: float
    is_true: bool


@dataclass(frozen=True, kw_only=True)
class Token:
    """One position of a sentence."""

    text: str
    """The true token, without the mark of a word's beginning or continuation."""
    begins_word: bool
    is_special: bool
    nats: float
    """KL(teacher || student)."""
    read_as: str | None
    """What the models read in its place where it is to be predicted; None elsewhere."""
    teacher: tuple[Guess, ...]
    student: tuple[Guess, ...]

    @property
    def is_masked(self) -> bool:
        return self.read_as is not None


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A held-out sequence."""

    number: int
    """Of the sequence in its corpus, as data.inspect shows it."""
    tokens: tuple[Token, ...]

    @property
    def mean(self) -> float:
        return float(np.mean([token.nats for token in self.tokens]))


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Over all sequences looked at, and the sentences that differ most."""

    sentences: list[Sentence]
    """The largest mean over their tokens first."""
    num_sequences: int
    nats: np.ndarray
    """Of every token of all sequences, (tokens,)."""
    is_masked: np.ndarray
    """(tokens,), bool."""


def find_disagreement(
    student: MaskedLanguageModel,
    teacher: MaskedLanguageModel,
    corpus: Corpus,
    batches: FixedBatches,
    masker: Masker,
    *,
    num_sentences: int,
    device: torch.device,
) -> Disagreement:
    """`masker` is the one that `batches` were masked with, so that the second pass reads what the first did."""
    numbers, means, nats, masked = [], [], [], []
    for batch in batches:
        found = token_nats(student, teacher, batch.to(device)).cpu().numpy()
        bounds = batch.cu_seqlens.numpy()
        means.append(np.add.reduceat(found, bounds[:-1]) / np.diff(bounds))
        numbers.append(batch.sequence_ids)
        is_masked = np.zeros(len(found), dtype=bool)
        is_masked[batch.masked_positions.numpy()] = True
        nats.append(found)
        masked.append(is_masked)
    order = np.argsort(-np.concatenate(means), kind="stable")[:num_sentences]
    chosen = np.concatenate(numbers)[order]
    words = Words(corpus.load_tokenizer())
    sentences = [_read(student, teacher, corpus, masker, int(number), words, device) for number in chosen]
    return Disagreement(
        sentences=sentences,
        num_sequences=batches.num_sequences,
        nats=np.concatenate(nats),
        is_masked=np.concatenate(masked),
    )


@torch.no_grad()
def token_nats(student: MaskedLanguageModel, teacher: MaskedLanguageModel, batch: Batch) -> Tensor:
    """(T,) fp32."""
    return torch.cat([_kl(own, other) for own, other in _walk(student, teacher, batch)])


def _walk(student: MaskedLanguageModel, teacher: MaskedLanguageModel, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Log probabilities (C, V) of student and teacher, chunk by chunk."""
    layout = (batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen)
    own, other = student(*layout).features, teacher(*layout).features
    chunk_tokens = CHUNK_TOKENS[own.device.type]
    for start in range(0, batch.num_tokens, chunk_tokens):
        rows = slice(start, start + chunk_tokens)
        yield student.logits(own[rows]).float().log_softmax(-1), teacher.logits(other[rows]).float().log_softmax(-1)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """(C, V) log probabilities -> (C,). Rounding may leave an agreement a little below 0."""
    return (teacher.exp() * (teacher - student)).sum(-1).clamp_min(0.0)


@torch.no_grad()
def _read(
    student: MaskedLanguageModel,
    teacher: MaskedLanguageModel,
    corpus: Corpus,
    masker: Masker,
    number: int,
    words: "Words",
    device: torch.device,
) -> Sentence:
    """A sentence with what both models expect."""
    ids = np.array([number])
    batch = make_batch(corpus, masker, ids, np.zeros_like(ids))
    true = batch.token_ids.clone()
    true[batch.masked_positions] = batch.masked_labels
    to_predict = set(batch.masked_positions.tolist())
    nats: list[float] = []
    guesses: list[tuple[tuple[Guess, ...], tuple[Guess, ...]]] = []
    for own, other in _walk(student, teacher, batch.to(device)):
        nats += _kl(own, other).tolist()
        labels = true[len(guesses) : len(guesses) + len(own)].tolist()
        guesses += [*zip(_best(other, labels, words), _best(own, labels, words), strict=True)]
    tokens, read = [], batch.token_ids.tolist()
    for place, (token, text) in enumerate(zip(true.tolist(), words.in_a_row(true.tolist()), strict=True)):
        tokens.append(
            Token(
                text=text.strip(" ") or EMPTY,
                begins_word=place == 0 or text.startswith(" "),
                is_special=bool(corpus.special[token]),
                nats=nats[place],
                read_as=words.alone(read[place]) if place in to_predict else None,
                teacher=guesses[place][0],
                student=guesses[place][1],
            )
        )
    return Sentence(number=number, tokens=tuple(tokens))


def _best(log_probs: Tensor, labels: list[int], words: "Words") -> list[tuple[Guess, ...]]:
    """(C, V), and the C true tokens -> the K most probable words of each row."""
    values, ids = log_probs.topk(min(KEPT, log_probs.shape[-1]))
    return [
        tuple(
            Guess(word=words.alone(token), probability=share, is_true=token == label)
            for token, share in zip(row, shares, strict=True)
        )
        for row, shares, label in zip(ids.tolist(), values.exp().tolist(), labels, strict=True)
    ]


class Words:
    """Tokens as a person reads them, of any kind of tokenizer and also those that are no whole character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decode: Callable[[list[int]], str] = tokenizer.decode
        self._vocab_size = tokenizer.vocab_size
        self._special = tokenizer.special_ids
        ordinary = (
            token
            for token in range(self._vocab_size)
            if self._text([token]).isascii() and self._text([token]).isalpha()
        )
        self._anchor = next((token for token in ordinary if token not in self._special), None)

    def alone(self, token: int) -> str:
        """With … before it where it continues a word, whatever its tokenizer writes there."""
        text = self._after(self._anchor, token)
        if not text.startswith(" "):
            return f"…{text}" if text[:1].isalnum() else text or EMPTY
        return text[1:] or EMPTY

    def in_a_row(self, tokens: list[int]) -> list[str]:
        """The texts of tokens that follow one another; one that begins a word begins with a space."""
        return [self._after(previous, token) for previous, token in zip([None, *tokens], tokens, strict=False)]

    def _after(self, previous: int | None, token: int) -> str:
        text = self._text([token])
        if token in self._special or self._anchor is None:
            return f" {printable(text.strip())}"
        if previous is None or previous in self._special:
            previous = self._anchor  # as after any word: what begins a text is else written as if it began a word
        both, before = self._text([previous, token]), self._text([previous])
        if both.startswith(before):
            text = both[len(before) :]
        elif "\N{REPLACEMENT CHARACTER}" not in text:  # half a character belongs to the half before it
            text = f" {text}"
        return f" {printable(text[1:])}" if text.startswith(" ") else printable(text)

    def _text(self, tokens: list[int]) -> str:
        known = [token for token in tokens if 0 <= token < self._vocab_size]
        return self._decode(known) if len(known) == len(tokens) else " ".join(map(str, tokens))
