"""The command that shows what is in a prepared corpus, or what two of them share.

    python -m data.inspect corpus/wiki --histogram wiki.png
    python -m data.inspect corpus/wiki --sequence 12345
    python -m data.inspect corpus/wiki --compare corpus/heldout

Exit codes: 0 done, 2 bad input or a corpus that --verify finds damaged (one line on stderr says which), 130 interrupted.
"""

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from command_line import parse
from data.config import DataConfig

if TYPE_CHECKING:  # everything heavy is imported in the functions that do the work, so that --help is instant
    from data.excerpts import Decode
    from data.indexed_dataset import IndexedDataset
    from data.lengths import Lengths, Place

_BAD_INPUT = 2
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what is in a corpus: counts, lengths, tokens, and sequences with their masks."""

    corpus: tyro.conf.Positional[str]
    """Prefix of the corpus, such as corpus/wiki."""

    max_length: int = 512
    """Longest sequence in tokens, [CLS] and [SEP] included, as training would cut it."""

    sequences: int = 3
    """Sequences to show: the first ones that training would read with this --seed, in this --epoch."""

    sequence: tuple[int, ...] = ()
    """Show only the sequences of these numbers, which is how incident files name them."""

    document: tuple[int, ...] = ()
    """Show only these documents, of each the first --sequences sequences."""

    seed: int = 0
    """Seed of the shuffle and the masks, as of train.py."""

    epoch: int = 0
    """Epoch of the shuffle and the masks, from 0."""

    mask_probability: float = 0.15
    """Share of a sequence's tokens to predict."""

    mask_smoothing: float = 0.7
    """Masking draws positions with weight count**-mask_smoothing, as of train.py."""

    frequent: int = 20
    """How many of the most frequent tokens to list."""

    histogram: str = ""
    """Also draw the lengths of documents and sequences into this .png."""

    tokenizer: str = ""
    """Decode with this tokenizer: for a corpus without PREFIX.json, such as Megatron-LM's. Else the corpus's own is used."""

    verify: bool = False
    """First read and check every byte, as `python -m data.prepare --verify` does."""

    compare: str = ""
    """Prefix of another corpus, such as held-out text: only report how much of it is in this one."""

    shingle: int = 13
    """Tokens in a row that count as shared text in --compare."""

    def check(self) -> None:
        """Errors: ValueError naming the flag."""
        DataConfig(
            data=self.corpus,
            max_length=self.max_length,
            mask_probability=self.mask_probability,
            mask_smoothing=self.mask_smoothing,
        )
        for flag in ("sequences", "frequent", "seed", "epoch"):
            if getattr(self, flag) < 0:
                raise ValueError(f"--{flag} {getattr(self, flag)} cannot be negative")
        if self.shingle < 1:
            raise ValueError(f"--shingle {self.shingle}: shared text needs at least 1 token; 13 is usual")
        if self.histogram and Path(self.histogram).suffix.lower() != ".png":
            raise ValueError(f"--histogram {self.histogram} is not the name of a .png")


def inspect(config: InspectConfig) -> None:
    """Print what the flags ask for. Errors: ValueError, OSError."""
    from data.excerpts import decoder
    from data.indexed_dataset import IndexedDataset
    from data.lengths import measure_lengths
    from data.sidecar import load_own_tokenizer
    from data.tokenizer import load_tokenizer
    from data.verify import verify

    config.check()
    if config.verify:
        found = verify(config.corpus)
        print(f"{config.corpus} is intact: {found.bytes:,} bytes read\n", flush=True)
    if config.compare:
        from data.overlap_report import compare

        return compare(config.corpus, config.compare, config.shingle)
    dataset = IndexedDataset(config.corpus)
    if dataset.sidecar is not None and config.tokenizer:
        raise ValueError(
            f"--tokenizer {config.tokenizer}: {config.corpus} has its own, named in its .json. Leave it out"
        )
    tokenizer = None
    if dataset.sidecar is not None:
        tokenizer = load_own_tokenizer(config.corpus, dataset.sidecar.tokenizer)
    elif config.tokenizer:
        tokenizer = load_tokenizer(config.tokenizer)
    lengths, decode = measure_lengths(dataset, config.max_length), decoder(tokenizer)
    if config.sequence or config.document:
        return _show(config, lengths, _asked_for(config, lengths), decode)
    from data.corpus_report import describe_counts, describe_lengths, describe_tokens

    describe_counts(lengths)
    describe_lengths(lengths)
    if config.histogram:
        from data.picture import save_png

        save_png(lengths, config.histogram)
        print(f"\nhistograms of both are drawn in {config.histogram}")
    describe_tokens(dataset, tokenizer, decode, config.frequent)
    _show(config, lengths, _first_of_training(config, lengths), decode)


def _asked_for(config: InspectConfig, lengths: "Lengths") -> list["Place"]:
    numbers = list(config.sequence)
    for document in config.document:
        sequences = lengths.of_document(document)
        numbered = (
            f"{len(sequences)} sequences: {sequences.start} to {sequences.stop - 1}" if sequences else "no tokens"
        )
        print(f"document {document} has {numbered}")
        numbers += sequences[: config.sequences]
    return [lengths.locate(number) for number in numbers]


def _first_of_training(config: InspectConfig, lengths: "Lengths") -> list["Place"]:
    import numpy as np

    from data.shuffle import permute

    wanted = np.arange(min(config.sequences, lengths.num_sequences))
    if not wanted.size:
        return []
    shuffled = permute(wanted, lengths.num_sequences, seed=config.seed, epoch=config.epoch)
    print(f"\nthe first sequences of epoch {config.epoch} with --seed {config.seed}")
    return [lengths.locate(int(number)) for number in shuffled]


def _show(config: InspectConfig, lengths: "Lengths", places: list["Place"], decode: "Decode") -> None:
    from data.corpus import Corpus
    from data.excerpts import LEGEND, masked, stored

    dataset: IndexedDataset = lengths.dataset
    if not places:
        return
    if dataset.sidecar is None:
        print("as they are stored: without PREFIX.json nobody knows what [CLS] and [MASK] are")
        for place in places:
            print("", *stored(dataset, place, decode), sep="\n")
        return
    print(LEGEND)
    corpus = Corpus(dataset, max_length=config.max_length)
    masker = corpus.masker(seed=config.seed, probability=config.mask_probability, smoothing=config.mask_smoothing)
    for place in places:
        print("", *masked(corpus, masker, place, config.epoch, decode), sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = parse(
        InspectConfig, sys.argv[1:] if arguments is None else arguments, __doc__ or "", "python -m data.inspect"
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still shows the rest
    try:
        inspect(config)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
