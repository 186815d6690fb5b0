"""What `data.inspect` prints about one corpus, in 100 columns."""

import itertools
import textwrap

import numpy as np

from data.excerpts import WIDTH, Decode
from data.frequencies import sampled_frequencies, stored_frequencies
from data.indexed_dataset import IndexedDataset, corpus_file
from data.lengths import EXACT_BELOW, Lengths
from data.picture import text_bars
from data.tokenizer import Tokenizer

_SEQUENCES_PER_BATCH = 32  # of the batch whose padding is computed
_SEQUENCE_BARS = 8


def describe_counts(lengths: Lengths) -> None:
    """What there is, and what it was made from."""
    dataset, sidecar = lengths.dataset, lengths.dataset.sidecar
    sizes = {end: corpus_file(dataset.prefix, end).stat().st_size for end in (".bin", ".idx")}
    mean = dataset.num_tokens / max(dataset.num_documents, 1)
    median, ninetieth = (_rounded(lengths.quantile(share)) for share in (0.5, 0.9))
    rows = [
        ("documents", f"{dataset.num_documents:,}"),
        ("tokens", f"{dataset.num_tokens:,}, stored as {dataset.dtype.name}"),
        ("tokens per document", f"mean {mean:,.1f}, median {median}, p90 {ninetieth}, longest {lengths.longest:,}"),
        ("longest document", f"{lengths.longest_document}"),
        (f"sequences of at most {lengths.max_length}", f"{lengths.num_sequences:,}"),
        ("bytes", f"{sizes['.bin']:,} of tokens, {sizes['.idx']:,} of index"),
    ]
    if dataset.index.num_sequences != dataset.num_documents:
        rows.insert(
            1, ("stored sequences", f"{dataset.index.num_sequences:,} (sentences, where Megatron-LM has split them)")
        )
    if sidecar is None:
        rows.append(("PREFIX.json", "none: readable, not trainable. python -m data.adopt makes it so"))
    else:
        facts = sidecar.tokenizer
        dropped = ", ".join(f"{number:,} {reason}" for reason, number in sidecar.dropped.items() if number)
        sides = {
            "all": "not split",
            "train": f"train: without the {sidecar.split.share:.3%} of the documents that are held out",
            "heldout": f"heldout: the {sidecar.split.share:.3%} of the documents that are held out",
        }
        rows += [
            ("vocabulary", f"{facts.vocab_size:,} tokens, fingerprint {facts.fingerprint[:16]}"),
            ("dropped documents", dropped or "none"),
            ("split", sides[sidecar.split.part]),
            ("inputs", _few(sidecar.inputs)),
        ]
    print(dataset.prefix)
    _print_rows(rows)


def describe_lengths(lengths: Lengths) -> None:
    """Histograms of both lengths, and what padding would cost."""
    rows = lengths.by_power_of_two()
    print("\ndocuments by tokens")
    print(*text_bars([(_span(first, last), count) for first, last, count in rows]), sep="\n")
    if not lengths.num_sequences:
        return
    print("\nsequences by tokens, [CLS] and [SEP] included")
    edges = np.unique(np.linspace(3, lengths.max_length, _SEQUENCE_BARS + 1).astype(int))
    counts = lengths.sequence_counts
    bars = [(_span(first, last - 1), int(counts[first:last].sum())) for first, last in itertools.pairwise(edges)]
    full = int(counts[-1])
    print(*text_bars([*bars, (f"{lengths.max_length} (full)", full)]), sep="\n")
    print()
    _print_wrapped(
        [
            f"{full / lengths.num_sequences:.1%} of the sequences are full. Packed, they waste no position; padded to the "
            f"longest of {_SEQUENCES_PER_BATCH} random ones they would waste "
            f"{lengths.padding_share(_SEQUENCES_PER_BATCH):.1%}, padded to {lengths.max_length} "
            f"{lengths.padding_share():.1%}."
        ]
    )


def describe_tokens(dataset: IndexedDataset, tokenizer: Tokenizer | None, decode: Decode, number: int) -> None:
    """The commonest tokens, and how much of the vocabulary the text uses."""
    if dataset.sidecar is not None:
        found = stored_frequencies(dataset)
    else:
        found = sampled_frequencies(dataset, tokenizer.vocab_size if tokenizer else None)
    if not found.counted:
        return
    how = (
        "" if found.counted == dataset.num_tokens else f", counted in {found.counted:,} of them spread over the corpus"
    )
    print(f"\nthe most frequent of {dataset.num_tokens:,} tokens{how}")
    cells = [
        f"{token:>7} {decode([token]).strip()[:12]:<12} {count:>13,} {count / found.counted:>6.2%}"
        for token, count in found.most_frequent(number)
    ]
    half = -(-len(cells) // 2)
    for left, right in zip(cells[:half], [*cells[half:], ""][:half], strict=True):
        print(f"  {left}    {right}".rstrip())
    covering = ", ".join(f"{found.tokens_covering(share):,} make {share:.0%}" for share in (0.5, 0.9, 0.99))
    used = int((found.counts > 0).sum())
    size = f"{tokenizer.vocab_size:,}" if tokenizer else "an unknown number of"
    unused = f" {tokenizer.vocab_size - used:,} never occur." if tokenizer else ""
    lines = [f"{used:,} of {size} tokens occur: {covering} of the text.{unused}"]
    if found.outside:
        lines.append(f"{found.outside:,} tokens are outside the vocabulary: it is another tokenizer's text.")
    if tokenizer:
        unknown, special = int(found.counts[tokenizer.unk_id]), sorted(tokenizer.special_ids - {tokenizer.unk_id})
        names = [f"{found.counts[token]:,} {decode([token])}" for token in special if found.counts[token]]
        others = f" Other special tokens within the text: {', '.join(names)}." if names else ""
        lines.append(f"Unknown ({decode([tokenizer.unk_id])}): {unknown:,}, {unknown / found.counted:.3%}.{others}")
    print()
    _print_wrapped(lines)


def _print_wrapped(sentences: list[str]) -> None:
    for sentence in sentences:
        print(textwrap.fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _rounded(length: int) -> str:
    return f"{'about ' if length >= EXACT_BELOW else ''}{length:,}"


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first >= last else f"{first:,} - {last:,}"


def _few(names: list[str]) -> str:
    """The first names, on one line."""
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return (shown[:50] + "..." if len(shown) > 50 else shown) + more or "none"


def _print_rows(rows: list[tuple[str, str]]) -> None:
    wide = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{wide}}  {value}")
