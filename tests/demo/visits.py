"""Visits to the page, timed, and its answers to many questions beside Python's. `record` is the command."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.build import build
from demo.config import BuildConfig
from demo.models import FILES
from demo.serve import Handler, PlainHandler, server
from evaluation.tasks import TASKS
from exporting.texts import read_dev
from tests.demo.browser import Browser
from tests.demo.exports import python_answers
from tests.demo.record import RecordConfig

NUM_WORDS = 150
SECONDS = 2.0
"""For the first answer about a text of so many words."""
NEARLY = 0.05
"""Of a score: in int8 two processors are not the same to the last digit, and the nearer of two answers may change."""
IS_READY = "/^Ready/.test(document.querySelector('#student .state').textContent)"


@contextmanager
def served(site: Path, handler: type[Handler]) -> Iterator[str]:
    serving = server(site, 0, handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://localhost:{serving.server_address[1]}/"
    serving.shutdown()
    serving.server_close()


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Seconds of a first and a second visit, and of first answers."""

    threads: str
    ready: float
    """From the address to the first question that may be asked."""
    checked: float
    """To the last of the recorded questions."""
    first_answer: float
    """From Enter to the answer, of the first question."""
    again: float
    """From the address to the answer, at the second visit."""


def visit(browser: Browser, url: str, question: str, text: str) -> Visit:
    """Both visits; the page is left open."""
    began = time.perf_counter()
    browser.visit(url)
    browser.wait(IS_READY, 300)
    ready = time.perf_counter() - began
    browser.wait_until_checked(seconds=600)
    checked = time.perf_counter() - began
    first_answer = seconds(lambda: browser.ask(question, text, 60))
    threads = browser.evaluate("crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1")
    browser.wait("document.getElementById('offline').textContent.includes('kept')")

    def return_and_ask() -> None:
        browser.visit(url)
        browser.wait(IS_READY, 60)
        browser.ask(question, text, 60)

    again = seconds(return_and_ask)
    return Visit(threads=str(threads), ready=ready, checked=checked, first_answer=first_answer, again=again)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of a model's answers with Python's, and how long they take."""

    same: int
    ties: list[str]
    """Question, the page's answer and Python's, which Python finds better by less than NEARLY."""
    others: list[str]
    """The same of answers that are no ties."""
    milliseconds: float
    """Median."""


def agreement(
    browser: Browser, models: dict[str, tuple[Path, str]], pairs: list[tuple[str, str]]
) -> dict[str, Agreement]:
    """Of `models`, each an export's folder and its ONNX file; the page is open, and they are loaded."""
    expected = {which: python_answers(folder, pairs, file)[0] for which, (folder, file) in models.items()}
    found: dict[str, list[tuple[str, float]]] = {which: [] for which in models}
    for question, text in pairs:
        for which, row in zip(models, browser.ask(question, text, 120, len(models)), strict=True):
            found[which].append((row[1], float(row[3].removesuffix(" ms"))))
    agreements = {}
    for which, answers in found.items():
        ties, others = [], []
        for (question, _), (answer, _), best in zip(pairs, answers, expected[which], strict=True):
            if answer != (best[0].text or "none"):
                lost = min((best[0].score - one.score for one in best if one.text == answer), default=float("inf"))
                kind = ties if lost < NEARLY else others
                kind.append(f"{question}: '{answer}', not '{best[0].text}', whose score is higher by {lost:.3f}")
        median = float(np.median([milliseconds for _, milliseconds in answers]))
        same = len(pairs) - len(ties) - len(others)
        agreements[which] = Agreement(same=same, ties=ties, others=others, milliseconds=median)
    return agreements


def measure(folder: Path, config: RecordConfig) -> tuple[list[str], bool]:
    """Lines of Markdown, and whether answers and time are as they are to be. `folder`: an empty one, to work in."""
    flags = {"student": config.student, "teacher": config.teacher, "output": str(folder / "site")}
    build(BuildConfig(**flags, precision=config.precision, teacher_precision=config.precision))
    examples = read_dev(TASKS["squad"], config.data, config.questions)
    pairs = [(example.texts[0], example.texts[1]) for example in examples]
    question = pairs[0][0]
    text = " ".join(" ".join(context for _, context in pairs).split()[:NUM_WORDS])
    given = {"student": config.student, "teacher": config.teacher}
    models = {which: (Path(export), FILES[config.precision]) for which, export in given.items() if export}
    with Browser(folder / "profile") as browser:
        with served(folder / "site", PlainHandler) as url:
            visits = [visit(browser, url, question, text)]
        with served(folder / "site", Handler) as url:
            visits.append(visit(browser, url, question, text))
            if config.teacher:
                browser.evaluate("document.getElementById('load-teacher').click()")
                browser.wait_until_checked("teacher", 900)
            agreements = agreement(browser, models, pairs)
    lines = [
        "| threads | first visit, may be asked after | all checked after | first answer | second visit, address to answer |",
        "|---|---|---|---|---|",
    ]
    for one in visits:
        lines.append(
            f"| {one.threads} | {one.ready:.1f} s | {one.checked:.1f} s | {one.first_answer:.2f} s | {one.again:.2f} s |"
        )
    lines.append("")
    for which, one in agreements.items():
        lines.append(
            f"{which}: {one.same} of {len(pairs)} answers are Python's, {len(one.ties)} are another in a tie, "
            f"{len(one.others)} are another; {one.milliseconds:.0f} ms (median)."
        )
        lines += [f"- {other}" for other in (*one.ties, *one.others)]
    is_fast = all(one.first_answer < SECONDS for one in visits)
    return lines, is_fast and all(not one.others for one in agreements.values())
