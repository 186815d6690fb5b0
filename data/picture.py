"""Histograms of a corpus's lengths: bars of text, and a PNG."""

import numpy as np

from data.lengths import Lengths, bin_edges

_BAR = 50  # characters of the longest bar; with its labels a line stays within 100 columns


def text_bars(rows: list[tuple[str, int]]) -> list[str]:
    """A line for each (label, count): label, count, share of all, and a bar against the largest count."""
    total, largest = sum(count for _, count in rows), max((count for _, count in rows), default=0)
    wide = max((len(label) for label, _ in rows), default=0)
    lines = []
    for label, count in rows:
        bar = "#" * round(_BAR * count / largest) if largest else ""
        share = f"{count / total:.1%}" if total else ""
        lines.append(f"  {label:>{wide}}  {count:>13,}  {share:>6}  {bar or ('.' if count else '')}".rstrip())
    return lines


def save_png(lengths: Lengths, path: str) -> None:
    """Document lengths (logarithmic) and sequence lengths at max_length, side by side. Errors: OSError, ValueError."""
    if not lengths.num_sequences:
        raise ValueError(f"--histogram {path}: {lengths.dataset.prefix} has no tokens, there is nothing to draw")
    import matplotlib  # only for those who ask for a picture

    matplotlib.use("Agg")  # a file; there may be no screen
    from matplotlib import pyplot

    figure, (documents, sequences) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    # Four bars to a power of two: each starts where a bin starts, so no document is counted on the wrong side.
    powers = np.arange(0, lengths.longest.bit_length() + 0.25, 0.25)
    edges = np.unique(np.ceil(2.0**powers))
    documents.hist(bin_edges(), bins=edges, weights=lengths.document_bins)
    documents.set(
        xscale="log", xlabel="tokens", ylabel="documents", title=f"{lengths.dataset.num_documents:,} documents"
    )
    counts = lengths.sequence_counts
    wide = max(1, lengths.max_length // 128)
    sequences.hist(
        np.arange(len(counts)), bins=np.arange(0, lengths.max_length + wide + 1, wide), weights=counts, log=True
    )
    sequences.set(
        xlabel=f"tokens, [CLS] and [SEP] included, of at most {lengths.max_length}",
        ylabel="sequences",
        title=f"{lengths.num_sequences:,} sequences, {counts[-1] / lengths.num_sequences:.1%} of them full",
    )
    figure.suptitle(lengths.dataset.prefix)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
