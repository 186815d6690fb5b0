"""The disagreement browser: held-out sentences with the difference of student and teacher under every token."""

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import torch

from data.batching import Corpus, fixed_batches
from evaluation.compare import load
from evaluation.report.disagreement import Disagreement, Guess, Sentence, Token, find_disagreement
from evaluation.report.document import Block, Drawn, Note, Prose, Section, Table
from evaluation.report.runs import Run

TITLE = "Where student and teacher differ"
SHADES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Nats from which a token's ground is darker by a step."""
_WORST = 5  # tokens of a sentence spelled out beneath it
_IN_MARKDOWN = 5  # sentences
_SEQUENCES_AT_ONCE = 16
_COLUMNS = ("token", "read as", "nats", "teacher", "student")
_LONGEST, _LONGEST_WORD = 40, 24  # characters of a token that are shown, and of a word that is kept on one line


def disagreement_section(
    runs: Sequence[Run], *, num_sentences: int, num_sequences: int, say: Callable[[str], None]
) -> Section:
    """Of the first distillation with a student; says why where there is nothing to show."""
    if not num_sentences:
        return Section(TITLE, [Note("Left out: --sentences 0.")])
    run = next((run for run in runs if run.is_distillation and run.has_student), None)
    if run is None:
        return Section(TITLE, [Note("Left out: no run has a student yet; it is written at a distillation's end.")])
    if not run.flags["eval_data"]:
        return Section(TITLE, [Note(f"Left out: {run.name} has no held-out text (--eval_data).")])
    say(f"comparing {run.name} with its teacher on {num_sequences} held-out sequences")
    try:
        found = _find(run, num_sentences, num_sequences)
    except (ValueError, OSError) as error:
        return Section(TITLE, [Note(f"Left out: {' '.join(str(error).split())}")])
    return Section(TITLE, _blocks(run, found), begins_page=True)


def _find(run: Run, num_sentences: int, num_sequences: int) -> Disagreement:
    """Errors: ValueError or OSError for what is not there, or does not fit together."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = Corpus.open(run.find(run.flags["eval_data"]), max_length=run.flags["max_length"])
    probability, smoothing = run.flags["mask_probability"], run.flags["mask_smoothing"]
    batches = fixed_batches(
        corpus,
        num_sequences=num_sequences,
        sequences_per_batch=_SEQUENCES_AT_ONCE,
        seed=0,
        rank=0,
        num_ranks=1,
        mask_probability=probability,
        mask_smoothing=smoothing,
    )
    return find_disagreement(
        load(str(run.folder / "student"), corpus, device),
        load(run.find(run.flags["teacher"]), corpus, device),
        corpus,
        batches,
        corpus.masker(seed=0, probability=probability, smoothing=smoothing),
        num_sentences=num_sentences,
        device=device,
    )


def _blocks(run: Run, found: Disagreement) -> list[Block]:
    nats, masked = found.nats, found.is_masked
    ordered = np.sort(nats)[::-1].cumsum()
    half = int(np.searchsorted(ordered, ordered[-1] / 2)) + 1
    return [
        Prose(
            f"{run.name} and its teacher on {found.num_sequences:,} held-out sequences with fixed masks, {len(nats):,} "
            f"tokens. The difference is KL(teacher || student) in nats at temperature 1: {nats[masked].mean():.3f} at the "
            f"masked tokens, {nats[~masked].mean():.3f} at the others. {half / len(nats):.1%} of the tokens make up half "
            f"of it. Below are the {len(found.sentences)} sequences with the largest mean over their tokens."
        ),
        Drawn(html=_html(found.sentences), markdown=[*_markdown(found.sentences)]),
    ]


def _html(sentences: Sequence[Sentence]) -> str:
    return "".join(
        [
            '<p>Under every token is its difference; the darker its ground, the larger. <span class="masked">Framed</span> '
            f"tokens were to be predicted. The {_WORST} largest are numbered and spelled out beneath, with what each model "
            "expects in that place; the true token is <b>bold</b>.</p>\n",
            f'<p class="legend" aria-hidden="true">{_legend()}</p>\n',
            '<p id="find" class="screen" hidden><label>Sentences with <input type="search"></label> <output></output></p>\n',
            *(_article(rank, sentence) for rank, sentence in enumerate(sentences, start=1)),
        ]
    )


def _legend() -> str:
    steps = ["<span>nats:</span>", f'<span class="token k0">below {SHADES[0]:g}</span>']
    steps += [f'<span class="token k{i}">{nats:g}</span>' for i, nats in enumerate(SHADES, start=1)]
    return " ".join(steps)


def _article(rank: int, sentence: Sentence) -> str:
    worst = worst_tokens(sentence)
    others = [token for token in sentence.tokens if token.is_masked and token not in worst]
    text = " ".join(_word(word, worst) for word in _words(sentence.tokens))
    plain = "".join(f" {token.text}" if token.begins_word else token.text for token in sentence.tokens).lower()
    fold = ""
    if others:
        rows = "".join(_row(token) for token in others)
        fold = f"<details><summary>{_count(len(others), 'other prediction')}</summary>{_guesses(rows)}</details>\n"
    return (
        f'<article class="sentence" data-text="{escape(plain)}">\n'
        f"<h3>{rank}. Sequence {sentence.number:,}: {sentence.mean:.2f} nats a token</h3>\n"
        f'<p class="tokens">{text}</p>\n'
        f"{_guesses(''.join(_row(token, number) for number, token in enumerate(worst, start=1)))}{fold}</article>\n"
    )


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    """Tokens that belong together."""
    words: list[list[Token]] = []
    for token in tokens:
        if token.begins_word or not words or words[-1][-1].is_special:
            words.append([])
        words[-1].append(token)
    return words


def _word(word: Sequence[Token], worst: Sequence[Token]) -> str:
    """On one line, unless it is too long for that, as all of a text is that has no spaces."""
    tokens = [_shown(token, worst) for token in word]
    if sum(len(token.text) for token in word) > _LONGEST_WORD:
        return "<wbr>".join(tokens)
    return f'<span class="word">{"".join(tokens)}</span>'


def _shown(token: Token, worst: Sequence[Token]) -> str:
    """A token with its difference under it, and its number if it is one of the worst."""
    number = next((f"<sup>{i}</sup>" for i, other in enumerate(worst, start=1) if other is token), "")
    kinds = ["token", f"k{shade(token.nats)}"]
    kinds += ["masked"] if token.is_masked else []
    kinds += ["special"] if token.is_special else []
    return (
        f'<ruby class="{" ".join(kinds)}" title="{token.nats:.3f} nats">{escape(token.text[:_LONGEST])}{number}'
        f"<rp> (</rp><rt>{brief(token.nats)}</rt><rp>)</rp></ruby>"
    )


def _guesses(rows: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    return f'<table class="guesses"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>\n'


def _row(token: Token, number: int | None = None) -> str:
    name, *cells = map(escape, _cells(token)[:3])
    name = f"{number}. {name}" if number else name
    cells += [_listed_html(guesses) for guesses in (token.teacher, token.student)]
    columns = "".join(f'<td data-name="{title}">{cell}</td>' for title, cell in zip(_COLUMNS[1:], cells, strict=True))
    return f'<tr><th scope="row">{name}</th>{columns}</tr>'


def _cells(token: Token) -> list[str]:
    text = token.text if token.begins_word or token.is_special else f"…{token.text}"
    read = "as it is" if token.read_as is None else token.read_as
    return [text, read, f"{token.nats:.2f}", _listed(token.teacher), _listed(token.student)]


def _listed(guesses: Sequence[Guess]) -> str:
    return " · ".join(f"{guess.word} {percent(guess.probability)}" for guess in guesses)


def _listed_html(guesses: Sequence[Guess]) -> str:
    words = [f"<b>{escape(guess.word)}</b>" if guess.is_true else escape(guess.word) for guess in guesses]
    return " · ".join(
        f"{word} {escape(percent(guess.probability))}" for word, guess in zip(words, guesses, strict=True)
    )


def _markdown(sentences: Sequence[Sentence]) -> list[Block]:
    """The worst tokens of the first sentences; all of them are in the page."""
    blocks: list[Block] = []
    for rank, sentence in enumerate(sentences[:_IN_MARKDOWN], start=1):
        worst = worst_tokens(sentence)
        text = "".join(f" {t.text}" if t.begins_word else t.text for t in sentence.tokens if not t.is_special)
        rows = [[f"{i}. {cells[0]}", *cells[1:]] for i, cells in enumerate(map(_cells, worst), start=1)]
        blocks.append(Prose(f"{rank}. Sequence {sentence.number:,}, {sentence.mean:.2f} nats a token: {text.strip()}"))
        blocks.append(Table(_COLUMNS, rows, is_text=True))
    if len(sentences) > _IN_MARKDOWN:
        blocks.append(Note(f"The other {len(sentences) - _IN_MARKDOWN} are in report.html."))
    return blocks


def worst_tokens(sentence: Sentence) -> list[Token]:
    """Those with the largest difference, in the order of the sentence."""
    places = sorted(range(len(sentence.tokens)), key=lambda i: -sentence.tokens[i].nats)[:_WORST]
    return [sentence.tokens[i] for i in sorted(places)]


def shade(nats: float) -> int:
    """0 for none to 5 for the darkest."""
    return sum(nats >= least for least in SHADES)


def brief(nats: float) -> str:
    """As short as it fits under a token."""
    if nats < 0.005:
        return "0"
    return f"{nats:.2f}".removeprefix("0") if nats < 1 else f"{nats:.1f}"


def percent(probability: float) -> str:
    """Two digits where the probability is small."""
    if probability >= 0.0995 or math.isnan(probability):
        return f"{probability:.0%}"
    return f"{probability:.1%}" if probability >= 0.001 else "<0.1%"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
