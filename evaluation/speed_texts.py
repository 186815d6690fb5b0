"""The texts of a speed measurement as token ids, with the lengths that they have in the file."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.tokenizer import Tokenizer

COLUMNS = (7, 9)
"""Of a line of STS-B: genre, file, year, number, score, sentence, sentence, and in some lines two sources."""
FIRST, SECOND = 5, 6

SYNTHETIC = "synthetic-16-64"
SYNTHETIC_LENGTHS = range(16, 65)
"""Every length from 16 to 64 tokens equally often, in an order drawn once."""
SYNTHETIC_TEXTS = 490


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What every model runs."""

    name: str
    ids: list[list[int]]
    """Token ids of each text, special tokens included."""
    total: int
    """Texts in the whole file, of which `ids` may be a sample."""

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Sentence pairs of a file of STS-B: no header, columns between tabs, no quoting.

    Raises:
        ValueError: naming the line that is none of it.
    """
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) not in COLUMNS:
            raise ValueError(
                f"{path}, line {number}: {len(columns)} columns between tabs, expected 7 or 9 as STS-B is published "
                "(sts-dev.csv, no header). One text a line is read by --text"
            )
        pairs.append((columns[FIRST], columns[SECOND]))
    return pairs


def read_lines(path: Path) -> list[tuple[str]]:
    """The texts of a file with one a line; blank lines are none."""
    return [(line.strip(),) for line in _lines(path) if line.strip()]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")  # splits at newlines only: texts may contain other separators
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def spread(count: int, wanted: int) -> list[int]:
    """Positions of `wanted` of `count` things, spread evenly; all of them for 0 or too many."""
    if not wanted or wanted >= count:
        return list(range(count))
    return [i * count // wanted for i in range(wanted)]


def encode(texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    """Texts or pairs with the special tokens of BERT or RoBERTa around them, cut at `max_length` as transformers does."""
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    between = sep * 2 if tokenizer.special_names["cls_token"] == "<s>" else sep  # RoBERTa: <s> A </s></s> B </s>
    encoded = [
        [ids.tolist() for ids in column]
        for column in zip(*(tokenizer.encode_batch(list(t)) for t in texts), strict=True)
    ]
    found = []
    for parts in zip(*encoded, strict=True):
        num_special = 2 if len(parts) == 1 else 2 + len(between)
        kept = cut(list(parts), max_length - num_special)
        middle = [] if len(kept) == 1 else [*between, *kept[1]]
        found.append([*cls, *kept[0], *middle, *sep])
    return found


def cut(parts: list[list[int]], room: int) -> list[list[int]]:
    """Tokens are taken from the end of whichever part is longer, until both fit."""
    if len(parts) == 1:
        return [parts[0][:room]]
    first, second = (len(part) for part in parts)
    if first + second > room:
        if first <= second:
            first = min(first, room // 2)
            second = room - first
        else:
            second = min(second, room // 2)
            first = room - second
    return [parts[0][:first], parts[1][:second]]


def synthetic(vocab_size: int, max_length: int) -> list[list[int]]:
    """Random words in `SYNTHETIC_LENGTHS`, without special tokens; which words they are costs nothing."""
    draw = random.Random(0)
    lengths = [SYNTHETIC_LENGTHS[i % len(SYNTHETIC_LENGTHS)] for i in range(SYNTHETIC_TEXTS)]
    draw.shuffle(lengths)
    lowest = min(1000, vocab_size // 2)  # special tokens have low ids in every published vocabulary
    return [[draw.randrange(lowest, vocab_size) for _ in range(min(length, max_length))] for length in lengths]
