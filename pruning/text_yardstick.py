"""Held-out text as a yardstick: masked language modelling on fixed masks, scored by the graph that is exported.

Shapes: T real tokens of a batch, B its sequences, L tokens of the longest, M masked positions, H width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.batch import Batch, make_batch
from data.corpus import Corpus
from data.tokenizer import vocabulary_fingerprint
from evaluation.heldout import evaluate
from exporting.plain import PlainModel, WordHead, plain_model
from model.bert import Prediction
from model.kernels.vocab_loss import Decoder
from pruning.config import PruneConfig
from pruning.heads import Importance, head_importance, heads_left
from pruning.subject import Subject
from pruning.vocabulary import Ids
from pruning.yardstick import INPUTS_AT_A_TIME, Scores, Yardstick, padded

SEQUENCES = 512
MASK_PROBABILITY, MASK_SMOOTHING = 0.15, 0.7
"""As evaluation.compare masks by default."""


class TextYardstick(Yardstick):
    """Sequences spread evenly over a corpus; importance from others, spread evenly over the rest.

    With a smaller vocabulary both models choose among its words, before and after: a loss over fewer candidates is lower
    whatever the model (97 to 48 words gave one that knows nothing 0.7 nats). Positions whose word it lacks are left out for
    both, and counted. In the text around them such a word becomes the unknown token for the smaller model, although its
    tokenizer would often find pieces.
    """

    def __init__(self, config: PruneConfig, subject: Subject, new_ids: Ids | None) -> None:
        corpus = open_corpus(config.data, subject, "--data")
        self.corpus = corpus
        self._sequence_ids = spread_ids(corpus.num_sequences, config.eval_examples or SEQUENCES)
        self._others = spread_others(self._sequence_ids, corpus.num_sequences, config.examples)
        self.num_examples = len(self._others)
        self._new_ids = new_ids
        self._batches = self._masked(self._sequence_ids)
        masked = sum(len(batch.masked_labels) for batch in self._batches)
        self._batches = [self._predictable(batch) for batch in self._batches]
        predicted = sum(len(batch.masked_labels) for batch in self._batches)
        if not predicted:
            raise ValueError(f"--data {config.data}: none of its masked words is in the trimmed vocabulary. Trim less")
        self.title = f"{config.data}, {predicted:,} masked words of {len(self._sequence_ids):,} sequences"
        if new_ids is not None:
            lost = f"; {masked - predicted:,} others are not in it" if predicted < masked else ""
            self.title += f", chosen by both models among the {np.count_nonzero(new_ids >= 0):,} that stay{lost}"

    def importance(self, model: nn.Module) -> Importance:
        if not len(self._others):
            raise ValueError(
                f"--data {self.corpus.dataset.prefix} has {self.corpus.num_sequences} sequences of up to "
                f"{self.corpus.max_length} tokens, and all are measured: none is left to take the importance of heads from. "
                "Lower --eval_examples"
            )
        batches = (batch for batch in map(self._predictable, self._masked(self._others)) if len(batch.masked_labels))
        return head_importance(
            plain_model(model),
            heads_left(model.config),
            batches,
            lambda batch: len(batch.sequence_ids),
            _masked_lm_loss,
        )

    def score(self, model: nn.Module, tokenizer: Any, new_ids: Ids | None) -> Scores:
        del tokenizer  # the corpus is tokens already
        candidates = None  # all words that the model has
        batches = self._batches
        if self._new_ids is not None:
            is_whole = new_ids is None
            candidates = torch.from_numpy(np.flatnonzero(self._new_ids >= 0)) if is_whole else None
            batches = [self._renumbered(batch, self._new_ids, is_whole) for batch in batches]
        scorable = PlainScorable(plain_model(model), candidates)
        device = torch.device("cpu")
        figures = evaluate(scorable, None, batches, temperature=1.0, device=device, reduce=lambda sums: sums)
        return {"accuracy": figures["eval_mlm_accuracy"], "MLM loss": figures["eval_mlm_loss"]}

    def inputs(self, count: int) -> list[list[int]]:
        chosen = spread_ids(self.corpus.num_sequences, count)
        tokens, cu_seqlens = self.corpus.packed(chosen)
        return [part.tolist() for part in np.split(tokens, cu_seqlens[1:-1])]

    def texts(self) -> list[str]:
        return decoded(self.corpus, self._sequence_ids)

    def _masked(self, sequence_ids: Ids) -> list[Batch]:
        """Longest first, so that little is padded."""
        lengths = self.corpus.lengths(sequence_ids)
        ordered = sequence_ids[np.argsort(-lengths, kind="stable")]
        masker = self.corpus.masker(seed=0, probability=MASK_PROBABILITY, smoothing=MASK_SMOOTHING)
        chunks = [ordered[start : start + INPUTS_AT_A_TIME] for start in range(0, len(ordered), INPUTS_AT_A_TIME)]
        return [make_batch(self.corpus, masker, chunk, np.zeros_like(chunk)) for chunk in chunks]

    def _predictable(self, batch: Batch) -> Batch:
        """Without the positions whose word the smaller vocabulary lacks; a random word it lacks is a [MASK] for all."""
        if self._new_ids is None:
            return batch
        stays = torch.from_numpy(self._new_ids >= 0)
        tokens = batch.token_ids.clone()
        masked = batch.masked_positions
        tokens[masked[~stays[tokens[masked]]]] = self.corpus.tokenizer.mask_id
        wanted = stays[batch.masked_labels]
        return replace(
            batch, token_ids=tokens, masked_positions=masked[wanted], masked_labels=batch.masked_labels[wanted]
        )

    def _renumbered(self, batch: Batch, new_ids: Ids, is_whole: bool) -> Batch:
        """Labels count the smaller vocabulary; so does the text, but for the model that has the whole one."""
        unknown = new_ids[self.corpus.tokenizer.unk_id]
        ids = torch.from_numpy(np.where(new_ids < 0, unknown, new_ids))
        tokens = batch.token_ids if is_whole else ids[batch.token_ids]
        return replace(batch, token_ids=tokens, masked_labels=ids[batch.masked_labels])


class PlainScorable:
    """A masked LM's exported graph as evaluation.heldout reads a model: packed; it may predict only `candidates`."""

    def __init__(self, plain: PlainModel, candidates: Tensor | None = None) -> None:
        assert isinstance(plain.head, WordHead)
        self.plain, self.head = plain, plain.head
        weight, bias = self.head.decoder.weight, self.head.decoder.bias
        if candidates is not None:
            weight, bias = weight[candidates], bias[candidates]
        self._decoder = Decoder(weight, bias, len(bias))

    def __call__(self, token_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Prediction:
        del position_ids, max_seqlen  # a sequence's positions count from 0
        hidden = _hidden(self.plain, token_ids, cu_seqlens)
        features = self.head.norm(F.gelu(self.head.transform(hidden)))
        return Prediction(hidden, features, self.decoder())

    def decoder(self) -> Decoder:
        return self._decoder


def _hidden(plain: PlainModel, token_ids: Tensor, cu_seqlens: Tensor) -> Tensor:  # (T,), (B + 1,) -> (T, H)
    ids, mask = padded(token_ids.split(cu_seqlens.diff().tolist()))
    types = None if plain.encoder.token_type is None else torch.zeros_like(ids)
    return plain.encoder(ids, mask, types, plain.attention)[mask.bool()]


def _masked_lm_loss(plain: PlainModel, batch: Batch) -> Tensor:
    """Sum over the sequences of the mean over each one's masked words."""
    hidden = _hidden(plain, batch.token_ids, batch.cu_seqlens)
    (logits,) = plain.head(hidden[batch.masked_positions])  # (M, V)
    sequence = torch.searchsorted(batch.cu_seqlens.long(), batch.masked_positions, right=True) - 1  # (M,)
    counts = torch.bincount(sequence, minlength=len(batch.sequence_ids))
    return (F.cross_entropy(logits, batch.masked_labels, reduction="none") / counts[sequence]).sum()


def open_corpus(prefix: str, subject: Subject, flag: str) -> Corpus:
    """Errors: FileNotFoundError, or ValueError for a corpus of another tokenizer."""
    corpus = Corpus.open(prefix, max_length=subject.max_length)
    if corpus.fingerprint != vocabulary_fingerprint(subject.folder):
        raise ValueError(
            f"{flag} {prefix} was prepared with another tokenizer than that of {subject.folder}. Prepare it again: "
            f"python -m data.prepare --input FILE... --tokenizer {subject.folder} --output PREFIX"
        )
    return corpus


def decoded(corpus: Corpus, sequence_ids: Ids) -> list[str]:
    """The sequences as text, without [CLS] and [SEP]."""
    decode: Callable[[Any], str] = corpus.load_tokenizer().decode
    tokens, cu_seqlens = corpus.packed(sequence_ids)
    return [decode(part[1:-1]) for part in np.split(tokens, cu_seqlens[1:-1])]


def spread_ids(count: int, wanted: int) -> Ids:
    """Numbers of `wanted` of `count` things (all for 0), spread evenly."""
    number = min(wanted or count, count)
    return np.arange(number, dtype=np.int64) * count // max(1, number)


def spread_others(taken: Ids, count: int, wanted: int) -> Ids:
    """The same among those of `count` things that are not `taken` (ascending), without a list of them."""
    places = spread_ids(count - len(taken), wanted)
    before = taken - np.arange(len(taken))  # others that lie before each taken one
    return places + np.searchsorted(before, places, side="right")
