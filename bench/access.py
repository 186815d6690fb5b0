"""How fast a corpus in the page cache is read at random, and how fast the stream is shuffled, on one core.

    python -m bench.access --prefix corpus/wiki --documents 10000000 --folder /scratch

A table for the corpus at --prefix, cut at 128 and at 512 tokens, and for one of --documents short documents of random
words, which is written into --folder and removed. The sequences are those of consecutive updates of the shuffled stream.
Figures are of processor time, the best of several rounds: what one core does while nobody else needs it. "GB/s out" are
the bytes of the arrays that are returned, 8 a token.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.open_corpus import write_corpus
from data.batch import make_batch
from data.batching import Blend, Corpus, UpdateWindows
from data.masking import Int64
from data.shuffle import permute

_SEQUENCES = 4096  # of an update
_UPDATES = 8  # in a round
_ROUNDS = 5
_AT_ONCE = 1 << 24  # tokens
_SHUFFLED = (10**6, 10**8, 10**10)


class Row(NamedTuple):
    """Seconds of processor time, sequences and tokens of one round."""

    name: str
    seconds: float
    sequences: int
    tokens: int

    def __str__(self) -> str:
        tokens_per_second = self.tokens / self.seconds
        return (
            f"| {self.name} | {self.sequences / self.seconds / 1e6:.2f} M | {tokens_per_second / 1e6:.0f} M "
            f"| {8 * tokens_per_second / 1e9:.2f} |"
        )


def best_of(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return min(seconds)


def fill_with_words(prefix: Path) -> None:
    """Random ordinary tokens in place of the zeros of `write_corpus`."""
    generator, path = np.random.default_rng(0), Path(f"{prefix}.bin")
    left = path.stat().st_size // 2
    with path.open("r+b") as file:
        while left:
            number = min(left, _AT_ONCE)
            file.write(generator.integers(1000, 30_000, number, dtype="<u2").data)
            left -= number


def measure(name: str, prefix: Path, max_length: int) -> list[Row]:
    corpus = Corpus.open(prefix, max_length=max_length)
    corpus.dataset.tokens.max()  # into the page cache, and into this process's map
    blend = Blend([corpus])
    windows = UpdateWindows(blend, sequences_per_update=_SEQUENCES, seed=1, mask_probability=0.15)
    updates = [windows.window(number) for number in range(_UPDATES)]
    ids = [window.sequence_ids for window in updates]
    tokens, masker = sum(window.attended for window in updates), blend.masker(seed=1, probability=0.15, smoothing=0.7)
    epochs = np.zeros(_SEQUENCES, dtype=np.int64)

    def row(what: str, read: Callable[[Int64], object], at_once: int) -> Row:
        parts = [part for window in ids for part in np.split(window, _SEQUENCES // at_once)]

        def everything() -> None:
            for part in parts:
                read(part)

        return Row(f"{name} | {what} | {at_once}", best_of(everything), _SEQUENCES * _UPDATES, tokens)

    return [
        row("lengths", corpus.lengths, _SEQUENCES),
        row("packed", corpus.packed, _SEQUENCES),
        row("packed", corpus.packed, 256),
        row("packed", corpus.packed, 32),
        row("make_batch, masked", lambda part: make_batch(blend, masker, part, epochs[: len(part)]), 32),
        row("the masks alone", masks_alone(corpus, masker, ids), 32),
    ]


def masks_alone(corpus: Corpus, masker: Callable[..., object], ids: list[Int64]) -> Callable[[Int64], object]:
    """Of the same sequences, read before."""
    batches = {}
    for window in ids:
        for part in np.split(window, _SEQUENCES // 32):
            batches[part.tobytes()] = corpus.packed(part)
    epochs = np.zeros(32, dtype=np.int64)
    return lambda part: masker(*batches[part.tobytes()], part, epochs)


def describe(prefix: Path, max_length: int) -> str:
    corpus = Corpus.open(prefix, max_length=max_length)
    mean = corpus.dataset.num_tokens / corpus.num_sequences + 2
    return f"{corpus.dataset.num_documents:,} documents, {corpus.num_sequences:,} of {mean:.0f}"


def shuffle_row(size: int) -> str:
    index = np.arange(size // 3, size // 3 + _SEQUENCES)
    epochs = np.full(_SEQUENCES, 3)
    seconds = best_of(lambda: [permute(index, size, seed=1, epoch=epochs) for _ in range(_UPDATES)]) / _UPDATES
    return f"| {size:,} | {1e6 * seconds:.0f} | {_SEQUENCES / seconds / 1e6:.2f} M |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=Path, help="a corpus of real text")
    parser.add_argument("--documents", type=int, default=10_000_000, help="of the corpus that is made; 0: none")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    print("| corpus (sequences of mean length) | read | sequences at once | sequences/s | tokens/s | GB/s out |")
    print("|---|---|---|---|---|---|")
    if options.prefix:
        for max_length in (128, 512):
            for row in measure(describe(options.prefix, max_length), options.prefix, max_length):
                print(row, flush=True)
    if options.documents:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            prefix = Path(folder) / "short"
            write_corpus(prefix, options.documents, "short")
            fill_with_words(prefix)
            for row in measure(describe(prefix, 128), prefix, 128):
                print(row, flush=True)
    print("\n| shuffled sequences | microseconds for 4,096 | sequences/s |\n|---|---|---|")
    for size in _SHUFFLED:
        print(shuffle_row(size))


if __name__ == "__main__":
    main()
