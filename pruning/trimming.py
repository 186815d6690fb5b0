"""--trim_vocab from its sources to files: what the text has, what stays, the smaller tokenizer, found to agree."""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.indexed_dataset import corpus_file
from data.sources import BadRecord, SourceOptions, plan_inputs
from data.tokenizer import TOKENIZER_FILES
from data.tokenizer import load_tokenizer as load_own
from finetuning.starts import load_tokenizer
from model.config import read_json
from model.families import FAMILIES
from pruning.config import PruneConfig
from pruning.subject import Subject
from pruning.text_yardstick import decoded, open_corpus
from pruning.vocabulary import Ids, kept_tokens, new_ids_of, same_tokens, trimmed_record

SAMPLE = 500
"""Texts of each source that are tokenized before and after."""
_TEXTS_AT_ONCE = 1000
_LONGEST_TEXT = 10_000  # characters of a text of the sample
_PART_BYTES = 64 << 20
_CONFIGURATION = ("tokenizer_config.json", "special_tokens_map.json", "config.json")
_VOCABULARIES = [name for name in TOKENIZER_FILES if name not in _CONFIGURATION]


@dataclass(frozen=True, kw_only=True)
class Trimming:
    """Which tokens stay."""

    record: dict[str, Any]
    """tokenizer.json as it was."""
    kept: Ids
    """(K,) old ids, ascending."""
    new_ids: Ids
    """(V,) new id of every old one, -1 for those that are gone."""
    seen: int
    """Different tokens that occur in the sources."""
    sample: list[str]
    """Of their texts."""

    def renumbered(self, inputs: Iterable[list[int]], unknown: int) -> list[list[int]]:
        """Token ids in the smaller vocabulary; `unknown` is the old id of the token for what it lacks."""
        new = np.where(self.new_ids < 0, self.new_ids[unknown], self.new_ids)
        return [new[ids].tolist() for ids in inputs]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How texts are read before and after."""

    texts: int
    same: int
    """Token for token; every text whose tokens are known and all stay is among them."""
    tokens_before: int
    tokens_after: int

    def __str__(self) -> str:
        rest = self.texts - self.same
        if not rest:
            return f"all {self.texts:,} read as before"
        longer = self.tokens_after / max(1, self.tokens_before) - 1
        return f"{self.same:,} of {self.texts:,} read as before, {rest:,} in other tokens ({longer:+.2%} tokens in all)"


def plan_trimming(config: PruneConfig, subject: Subject) -> Trimming:
    """Errors: FileNotFoundError, or ValueError for sources without text, or a corpus of another tokenizer."""
    own = load_own(str(subject.folder))
    size = subject.model.config.vocab_size
    counts = np.zeros(max(size, own.vocab_size), dtype=np.int64)
    sample: list[str] = []
    for source in config.trim_vocab:
        if corpus_file(source, ".idx").is_file():
            corpus = open_corpus(source, subject, "--trim_vocab")
            counts[: corpus.vocab_size] += corpus.dataset.token_counts()
            wanted = min(SAMPLE, corpus.num_sequences)
            sample += decoded(corpus, np.arange(wanted, dtype=np.int64) * corpus.num_sequences // wanted)
        else:
            texts = _texts(source)
            first = list(islice(texts, SAMPLE))
            if not first:
                raise ValueError(
                    f"--trim_vocab {source} has no text. Give a prepared corpus or text that data.prepare reads"
                )
            sample += [text[:_LONGEST_TEXT] for text in first]
            for some in _chunks(first, texts):
                ids = np.concatenate([np.empty(0, np.int32), *own.encode_batch(some)])
                counts += np.bincount(ids, minlength=len(counts))
    configured = {value for _, value in _token_ids(subject.model.config) if value < size}
    record = json.loads(subject.tokenizer.backend_tokenizer.to_str())
    kept = kept_tokens(record, counts, own.special_ids | configured, config.vocab_size)
    return Trimming(
        record=record, kept=kept, new_ids=new_ids_of(kept, size), seen=int(np.count_nonzero(counts)), sample=sample
    )


def _texts(source: str) -> Iterator[str]:
    for item in plan_inputs([source], SourceOptions(), _PART_BYTES):
        for _, documents in item.parts(lambda _number: True, lambda _bytes: None):
            yield from (document for document in documents or () if not isinstance(document, BadRecord))


def _chunks(first: list[str], rest: Iterator[str]) -> Iterator[list[str]]:
    while first:
        yield first
        first = list(islice(rest, _TEXTS_AT_ONCE))


def write_tokenizer(subject: Subject, trimming: Trimming, folder: Path) -> None:
    """Configuration as it was, and the smaller vocabulary in all files that its kind is published in. Errors: OSError."""
    subject.tokenizer.save_pretrained(folder)
    for name in _VOCABULARIES:
        (folder / name).unlink(missing_ok=True)
    record = trimmed_record(trimming.record, trimming.kept)
    (folder / "tokenizer.json").write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    written = read_json(folder / "tokenizer_config.json")
    if numbered := written.get("added_tokens_decoder"):
        renumbered = {str(trimming.new_ids[int(number)]): token for number, token in numbered.items()}
        content = json.dumps(written | {"added_tokens_decoder": renumbered}, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(content + "\n", encoding="utf-8")
    backend = load_tokenizer(folder).backend_tokenizer
    if record["model"]["type"] in ("WordPiece", "BPE"):
        backend.model.save(str(folder))  # vocab.txt, or vocab.json and merges.txt


def agreement(before: Any, after: Any, texts: Iterable[str], new_ids: Ids) -> Agreement:
    """Of two of transformers' tokenizers, with special tokens. Errors: ValueError where a text of kept tokens differs."""
    count = same = tokens_before = tokens_after = 0
    unknown = before.unk_token_id
    for text in texts:
        one, two = before(text)["input_ids"], after(text)["input_ids"]
        is_same = same_tokens(one, two, new_ids)
        if not is_same and unknown not in one and (new_ids[np.asarray(one)] >= 0).all():
            raise ValueError(
                f"the trimmed tokenizer reads {text[:80]!r} otherwise, although all of its tokens stay: this tokenizer "
                "cannot be trimmed"
            )
        count, same = count + 1, same + is_same
        tokens_before, tokens_after = tokens_before + len(one), tokens_after + len(two)
    return Agreement(texts=count, same=same, tokens_before=tokens_before, tokens_after=tokens_after)


def trim_model(model: nn.Module, trimming: Trimming) -> nn.Module:
    """A model of the same class that knows the kept tokens alone, by their new ids; all else is copied."""
    config, new = copy.deepcopy(model.config), trimming.new_ids
    family = FAMILIES[config.model_type]
    for key, value in _token_ids(config):
        setattr(config, key, int(new[value]) if value < len(new) and new[value] >= 0 else None)
    config.vocab_size = len(trimming.kept)
    moved = model.config.pad_token_id - config.pad_token_id if family.counts_from_padding else 0
    config.max_position_embeddings -= moved  # rows before that of the first token, which no token uses
    kept = torch.from_numpy(trimming.kept)
    (word,), (bias,) = family.names["encoder.word.weight"], family.names["head.bias"]
    (position,) = family.names["encoder.position.weight"]
    by_token = {word, bias, f"{family.decoder}.weight", f"{family.decoder}.bias"}
    weights = {
        name: value[kept] if name in by_token else value[moved:] if name == position else value
        for name, value in model.state_dict().items()
    }
    smaller = type(model)(config)
    smaller.load_state_dict(weights)
    return smaller.eval()


def _token_ids(config: Any) -> list[tuple[str, int]]:
    """What a configuration says of special tokens."""
    named = {key: getattr(config, key, None) for key in config.to_dict() if key.endswith("_token_id")}
    return [(key, value) for key, value in named.items() if type(value) is int and value >= 0]
