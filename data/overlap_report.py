"""What `data.inspect --compare` prints: is the other corpus apart from this one?"""

import textwrap

import numpy as np

from data.excerpts import WIDTH, Decode, decoder
from data.indexed_dataset import IndexedDataset
from data.overlap import SharedShingles, shared_documents, shared_shingles
from data.sidecar import Sidecar, load_own_tokenizer

_LISTED = 10
_FEW = 0.01  # idioms, quotations and tables of any two texts of a kind
_CONTAINED = 0.5  # of a document's shingles: it is a copy, an edition or an extract


def compare(this: str, other: str, shingle: int) -> None:
    """Print how much of the corpus `other` is in the corpus `this`. Errors: ValueError, OSError."""
    here, there = IndexedDataset(this), IndexedDataset(other)
    sidecar = _same_vocabulary(here, there)
    decode = decoder(load_own_tokenizer(other, sidecar.tokenizer))
    print(f"{other} ({there.num_documents:,} documents) in {this} ({here.num_documents:,})", flush=True)

    documents = shared_documents(here, there)
    share = documents.number / max(there.num_documents, 1)
    print(f"\n  {documents.number:,} documents ({share:.2%}) are there token for token")
    for theirs, ours in documents.examples:
        print(f"    document {theirs} is document {ours} of {this}: {_beginning(there, theirs, decode)}", flush=True)

    shingles = shared_shingles(here, there, shingle, sidecar.tokenizer.vocab_size)
    sample = "all" if shingles.rate == 1 else f"a sample by hash, 1 in {shingles.rate:,}"
    total, found = len(shingles.found), int(shingles.found.sum())
    print(f"  {found:,} of {total:,} runs of {shingle} tokens ({found / max(total, 1):.2%}) are there: {sample}")
    contained = _list_documents(there, shingles, decode)
    print()
    print(textwrap.fill(_verdict(this, other, documents.number, contained, found / max(total, 1), shingle), WIDTH))


def _same_vocabulary(here: IndexedDataset, there: IndexedDataset) -> Sidecar:
    """The other's PREFIX.json, whose vocabulary is this one's."""
    sidecars = []
    for dataset in (here, there):
        if dataset.sidecar is None:
            raise ValueError(
                f"{dataset.prefix}.json is missing, so nobody knows which vocabulary its ids are of. "
                f"Write it: python -m data.adopt {dataset.prefix} --tokenizer FOLDER"
            )
        sidecars.append(dataset.sidecar)
    ours, theirs = (sidecar.tokenizer for sidecar in sidecars)
    if ours.fingerprint != theirs.fingerprint:
        raise ValueError(
            f"{here.prefix} and {there.prefix} have different vocabularies ({ours.vocab_size} tokens, fingerprint "
            f"{ours.fingerprint[:16]}, and {theirs.vocab_size}, {theirs.fingerprint[:16]}): the same text has other ids. "
            "Prepare one of them again with the other's --tokenizer"
        )
    return sidecars[1]


def _list_documents(there: IndexedDataset, shingles: SharedShingles, decode: Decode) -> int:
    """Print the most overlapping documents; returns how many are contained for the most part."""
    documents, sampled, found = shingles.by_document()
    shares = found / sampled
    shown = np.flatnonzero(found)[:_LISTED]
    if shown.size:
        print("\n  most overlapping documents: number, share of its runs, found, beginning")
    for row in shown:
        document = int(documents[row])
        beginning = _beginning(there, document, decode)
        print(f"    {document:>9} {shares[row]:>7.1%} {found[row]:>9,}  {beginning}")
    return int((shares >= _CONTAINED).sum())


def _beginning(dataset: IndexedDataset, document: int, decode: Decode) -> str:
    starts, lengths = dataset.index.locate(np.array([document]))
    return textwrap.shorten(decode(dataset.tokens[starts[0] : starts[0] + min(int(lengths[0]), 24)]), 60)


def _verdict(this: str, other: str, same: int, contained: int, share: float, shingle: int) -> str:
    if same or contained:
        return (
            f"{other} is not apart from {this}: at least {max(same, contained):,} of its documents are there whole or for "
            f"the most part. Remove them before what is trained on {this} is evaluated on {other}."
        )
    if share > _FEW:
        return (
            f"No document of {other} is in {this}, but {share:.1%} of its runs of {shingle} tokens are: look at the "
            "documents above before you evaluate on it."
        )
    return f"{other} is apart from {this}: no document is shared, and {share:.2%} of its runs of {shingle} tokens are."
