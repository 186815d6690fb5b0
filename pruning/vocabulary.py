"""A smaller vocabulary: which tokens stay, and the tokenizer of those alone.

A text whose tokens all stay is read as before. That holds for WordPiece, whose longest match is still there; for BPE, if
every merge on the way to a kept token stays, since no new one comes; for unigram models, whose best path stays the best.
Only a word that WordPiece gave up, [UNK], because its longest matches led nowhere, may now be read in shorter ones.
Shapes: V tokens of the vocabulary, K kept ones.
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

KINDS = ("WordPiece", "BPE", "Unigram")


def kept_tokens(record: Mapping[str, Any], counts: Ids, special: Collection[int], vocab_size: int = 0) -> Ids:
    """Ids (K,) that stay, ascending: special tokens, single characters, and what `counts` (V,) has seen, with its parts.

    `record` is a tokenizer.json; `special` are ids that stay whatever they are. With `vocab_size` the most frequent, until
    so many stay; a token goes in only together with what it is merged from.
    Errors: ValueError for another kind of tokenizer, or a `vocab_size` below what has to stay.
    """
    model = _known(record)
    tokens = vocabulary_of(model)
    base = {tokens[name] for name in _characters(model)} | set(special)
    base |= {token["id"] for token in record.get("added_tokens") or ()}
    parts = _parts(model, tokens)
    kept = set().union(*(_with_parts(token, parts) for token in base)) if base else set()
    if vocab_size and len(kept) > vocab_size:
        raise ValueError(
            f"--vocab_size {vocab_size}: special tokens and single characters alone are {len(kept):,}. Give at least that"
        )
    names = set(tokens.values())
    for token in np.argsort(-counts, kind="stable").tolist():
        if not counts[token]:
            break
        if token not in names:
            continue
        more = _with_parts(token, parts) - kept
        if not vocab_size or len(kept) + len(more) <= vocab_size:
            kept |= more
    return np.array(sorted(kept), dtype=np.int64)


def vocabulary_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of the "model" of a tokenizer.json."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, Mapping):
        return dict(vocabulary)
    return {piece: number for number, (piece, _) in enumerate(vocabulary)}


def new_ids_of(kept: Ids, size: int) -> Ids:
    """Old id (size,) -> new id, -1 for what is gone."""
    new = np.full(size, -1, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    return new


def trimmed_record(record: Mapping[str, Any], kept: Ids) -> dict[str, Any]:
    """The tokenizer.json of the kept tokens, in their order, numbered from 0."""
    new = {old: number for number, old in enumerate(kept.tolist())}
    trimmed = copy.deepcopy(dict(record))
    model = trimmed["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
        model["unk_id"] = new[model["unk_id"]] if model["unk_id"] is not None else None
    else:
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        names = model["vocab"].keys()
        model["merges"] = [merge for merge in model["merges"] if {*merge, _merged(model, *merge)} <= names]
    for token in trimmed.get("added_tokens") or ():
        token["id"] = new[token["id"]]
    _renumber_processor(trimmed.get("post_processor"), new)
    return trimmed | {"truncation": None, "padding": None}


def _known(record: Mapping[str, Any]) -> Mapping[str, Any]:
    model: Mapping[str, Any] = record["model"]
    if model.get("type") not in KINDS:
        raise ValueError(f"a tokenizer of the kind {model.get('type')} cannot be trimmed, only {', '.join(KINDS)}")
    return model


def _characters(model: Mapping[str, Any]) -> Iterable[str]:
    """What unknown words fall apart into, and what else decides how they do."""
    prefix = model.get("continuing_subword_prefix") or ""
    for token in vocabulary_of(model):
        is_byte = token.startswith("<0x") and token.endswith(">") and len(token) == len("<0x00>")
        if len(token.removeprefix(prefix)) == 1 or len(token) == 1 or is_byte:
            yield token
    if model["type"] == "Unigram":  # an unknown character scores a constant less than the lowest of all pieces
        yield min(model["vocab"], key=lambda entry: entry[1])[0]


def _parts(model: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[int, set[int]]:
    """Token -> tokens that it is merged from, by any of the merges that make it; nothing for other kinds than BPE."""
    parts: dict[int, set[int]] = {}
    for left, right in model.get("merges") or ():
        parts.setdefault(tokens[_merged(model, left, right)], set()).update((tokens[left], tokens[right]))
    return parts


def _merged(model: Mapping[str, Any], left: str, right: str) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _with_parts(token: int, parts: Mapping[int, Collection[int]]) -> set[int]:
    """The token, its parts, and theirs."""
    found: set[int] = set()
    waiting = [token]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += parts.get(one, ())
    return found


def _renumber_processor(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    """The ids of [CLS] and [SEP] in a post_processor, in place."""
    if processor is None:
        return
    for role in ("cls", "sep"):
        if role in processor:
            name, old = processor[role]
            processor[role] = [name, new[old]]
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for part in processor.get("processors") or ():
        _renumber_processor(part, new)


def same_tokens(before: Sequence[int], after: Sequence[int], new_ids: Ids) -> bool:
    """Whether a text is read as before, token for token."""
    return new_ids[np.asarray(before, dtype=np.int64)].tolist() == list(after)
