"""The page as its user meets it, in a browser: answers, keys, small screens, screen readers, no network, broken files."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.models import Model
from demo.node import DIST
from demo.serve import PlainHandler, server
from demo.site import write_site
from exporting.passages import EVERYTHING, QUESTIONS, UNICODE
from tests.demo.browser import Browser
from tests.demo.conftest import Serve
from tests.demo.exports import python_answers, tampered
from tests.evaluation.report.test_in_chromium import OUTSIDE, luminance

TAB, ENTER = ("Tab", 9), ("Enter", 13)
CONTROL = 2
NEARLY = 0.03
"""Of a score, where the next best answer is about 0.5 away."""
FOCUSED = "document.activeElement.id"


@pytest.fixture
def page(browser: Browser, url: str) -> Browser:
    """The page with the student checked; at the first visit or at a later one."""
    browser.visit(url)
    browser.wait_until_checked()
    return browser


def test_answers_are_pythons_for_student_and_teacher(page: Browser, exported: Path, teacher: Path) -> None:
    pairs = [
        *QUESTIONS[:3],
        ("Quelle ville?", UNICODE),
        ("How long?", " ".join([EVERYTHING] * 2)),
        ("Who " * 80, EVERYTHING),
    ]
    page.evaluate("document.getElementById('load-teacher').click()")
    page.wait_until_checked("teacher")
    (students, windows), (teachers, _) = (python_answers(folder, pairs) for folder in (exported, teacher))
    expected = [students, teachers]
    assert windows[0] == 1
    assert windows[4] > 2
    assert {one[0].text for one in expected[0]} != {one[0].text for one in expected[1]}
    for row, (question, text) in enumerate(pairs):
        found = page.ask(question, text, models=2)
        for (_, answer, sure, milliseconds), answers in zip(found, expected, strict=True):
            best = answers[row][0]
            # Two processors' int8 are not the same to the last digit, and two answers may be nearly as good.
            assert answer in [one.text for one in answers[row] if one.score > best.score - NEARLY]
            assert float(sure.removesuffix("%")) == pytest.approx(100 * best.probability, abs=2)
            assert re.fullmatch(r"[\d.]+ ms", milliseconds)
        assert page.evaluate("document.querySelector('#passage mark').textContent") == found[0][1]
        assert page.text("passage") == text.replace("\r", "")
        said = page.text("answer")
        assert f"“{found[0][1]}” (student" in said
        assert (f"read in {windows[row]} windows" in said) == (windows[row] > 1)
    assert page.complaints() == []


def test_keys_alone_are_enough(page: Browser) -> None:
    page.evaluate("document.activeElement.blur()")
    order = []
    for _ in range(5):
        page.press(*TAB)
        order.append(page.evaluate(FOCUSED))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", order
    assert order == ["text", "question", "ask", "load-teacher", "backend"]
    page.evaluate("document.getElementById('text').focus()")
    page.press(*ENTER, modifiers=CONTROL)
    assert page.answers()
    assert page.evaluate(FOCUSED) == "text"
    page.fill("question", "Who?")
    page.press(*ENTER, text="\r")
    assert page.answers()
    assert page.evaluate(FOCUSED) == "question"


def test_what_is_missing_is_said_where_it_is_missing(page: Browser) -> None:
    for empty, words in (("question", "Type a question."), ("text", "Paste or type a text first.")):
        page.fill("question", "Who?")
        page.fill("text", "A text.")
        page.fill(empty, "")
        page.press(*ENTER, modifiers=CONTROL, text="\r")
        assert page.wait(f"document.getElementById('{empty}-problem').textContent") == words
        assert page.evaluate(FOCUSED) == empty
        assert page.evaluate(f"document.getElementById('{empty}').getAttribute('aria-invalid')") == "true"
        assert page.evaluate("document.getElementById('figures').hidden") is True
    page.fill("question", "\u200b")  # something, but no word
    page.fill("text", "A text.")
    page.press(*ENTER, modifiers=CONTROL)
    page.wait("document.getElementById('answer').textContent === 'There is no word in the question.'")


def test_a_long_reading_can_be_stopped(page: Browser) -> None:
    page.fill("text", " ".join([EVERYTHING] * 100))
    page.fill("question", "Who?")
    page.press(*ENTER, text="\r")
    said = page.wait(
        "/windows/.test(document.getElementById('answer').textContent) && document.getElementById('answer').textContent"
    )
    assert re.fullmatch(r"A long text: the student reads it in \d{3,} windows\.", said)
    assert page.wait("document.getElementById('windows').max") > 100
    page.evaluate("document.getElementById('stop').click()")
    assert page.text("answer") == "Stopped."
    [[_, answer, *_]] = page.ask(*QUESTIONS[0])  # which comes without waiting for the other windows
    assert answer


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_phone_shows_everything(page: Browser, url: str, scheme: str) -> None:
    page.visit(url, width=320, scheme=scheme)
    assert "checked at an earlier visit" in page.wait_until_checked()
    page.ask("Who?", "long" * 200 + " " + EVERYTHING)
    assert page.evaluate("innerWidth") == 320
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate(OUTSIDE.replace("SCROLLS", "#passage, .unseen")) == []
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    for one, other in (
        ("ink", "paper"),
        ("quiet", "paper"),
        ("bad", "soft"),
        ("on-accent", "accent"),
        ("on-mark", "mark"),
    ):
        light, dark = sorted((luminance(page.evaluate(f"{style}('--{name}')")) for name in (one, other)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (one, other)
    heights = page.evaluate(
        "[...document.querySelectorAll('button:not([hidden])')].map(b => b.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44


def test_a_screen_reader_finds_names_and_hears_the_answer(page: Browser) -> None:
    page.ask(*QUESTIONS[0])
    nodes = page("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    for role, name in (
        ("textbox", "Text"),
        ("textbox", "Question"),
        ("button", "Ask"),
        ("combobox", "Run on"),
        ("heading", "Answer"),
        ("region", "The text with the answer marked"),
        ("table", "What each model answers, and how long it takes"),
        ("rowheader", page.evaluate("document.querySelector('tbody th').textContent")),
    ):
        assert (role, name) in named, (role, name, sorted(named))
    interactive = ("textbox", "button", "combobox", "link")
    assert [role for role, name in named if role in interactive and not name] == []
    [status] = [node for node in nodes if node["role"].get("value") == "status"]
    properties = {one["name"]: one["value"].get("value") for one in status["properties"]}
    assert properties["live"] == "polite"
    assert properties["atomic"] is True
    assert any(node["role"].get("value") == "alert" for node in nodes)


def test_without_a_server_and_its_headers(browser: Browser, site: Path) -> None:
    """One thread at the first visit to a server that isolates nothing; at the next, threads, and no network is needed."""
    serving = server(site, 0, PlainHandler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    url = f"http://localhost:{serving.server_address[1]}/"
    browser.visit(url)
    browser.wait_until_checked()
    assert browser.evaluate("crossOriginIsolated") is False
    assert "runs on one thread, because the page is not cross-origin isolated" in browser.text("environment")
    assert browser.ask(*QUESTIONS[0])
    browser.wait("document.getElementById('environment').textContent.includes('reload it')")
    assert browser.text("offline").startswith("Everything is kept in this browser")
    serving.shutdown()
    serving.server_close()
    # The service worker is out of DevTools' reach: the server has to be gone indeed.
    browser("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    browser("Network.setCacheDisabled", cacheDisabled=True)
    try:
        browser.visit(url)
        assert browser.evaluate("crossOriginIsolated") is True
        # The verdict was one thread's; of threads it is another.
        browser.wait_until_checked()
        threads = browser.evaluate("Math.min(navigator.hardwareConcurrency, 4)")
        assert f"on {threads} thread" in browser.text("environment")
        assert browser.ask(*QUESTIONS[0])
        with pytest.raises(AssertionError, match="Failed to fetch"):
            browser.evaluate("fetch('nowhere')")
    finally:
        browser(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        browser("Network.setCacheDisabled", cacheDisabled=False)


def gives_up(browser: Browser, url: str) -> str:
    browser.visit(url)
    browser.wait("document.getElementById('ask').disabled")
    assert browser.text("answer") == "There is no answer: see the message above."
    browser.evaluate("document.getElementById('form').requestSubmit()")
    assert browser.evaluate("document.getElementById('figures').hidden") is True
    return browser.text("alert")


def test_a_model_that_computes_something_else_is_not_asked(
    browser: Browser, site: Path, exported: Path, serve: Serve, tmp_path: Path
) -> None:
    other = Model(title="Student", folder=tampered(exported, tmp_path / "other"), precision="int8")
    write_site(DIST, {"student": other}, tmp_path / "site")
    said = gives_up(browser, serve(tmp_path / "site"))
    assert re.search(
        r"The student is not used: WebAssembly computes something else .*differs .* by [\d.]+, and 0\.\d+ is", said
    )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (flip, "model_int8.onnx", "is damaged: its checksum is not that of the file that was built"),
        (flip, "tokenizer.json", "is damaged"),
        (Path.unlink, "model_int8.onnx", r"is missing on the server \(it answers 404\). Build the site again"),
        (empty, "golden.json", r"is damaged: .* \(0 bytes came, \d+ were built\)"),
    ],
)
def test_a_broken_file_is_named(
    damage: Callable[[Path], None], file: str, words: str, browser: Browser, site: Path, serve: Serve, tmp_path: Path
) -> None:
    shutil.copytree(site, tmp_path / "site", copy_function=os.link)
    [path] = (tmp_path / "site").glob(f"models/student-*/{file}")
    damage(path)
    said = gives_up(browser, serve(tmp_path / "site"))
    assert re.search(f"{path.name} {words}", said), said


def test_a_kept_file_that_is_damaged_is_fetched_again(page: Browser, site: Path, url: str) -> None:
    path = json.loads((site / "site.json").read_bytes())["models"]["student"]["onnx"]["path"]
    page.evaluate(
        f"caches.open('distillery-files').then(c => c.put(new URL('{path}', location.href).href, new Response('no model')))"
    )
    page.visit(url)
    assert page.wait_until_checked()
    kept = f"caches.open('distillery-files').then(c => c.match(new URL('{path}', location.href).href))"
    assert page.evaluate(f"{kept}.then(r => r.arrayBuffer()).then(b => b.byteLength)") == (site / path).stat().st_size


def test_webgpu_that_is_not_there_is_replaced_and_said(page: Browser) -> None:
    page.evaluate(
        "(b => {b.value = 'webgpu'; b.dispatchEvent(new Event('change'))})(document.getElementById('backend'))"
    )
    page.wait("document.getElementById('alert').textContent")
    assert (
        page.text("alert") == "WebGPU does not run here (this browser has no WebGPU here). WebAssembly is used instead."
    )
    page.wait_until_checked()
    assert page.evaluate("document.getElementById('backend').value") == "wasm"
    assert page.ask(*QUESTIONS[0])
    page.evaluate("localStorage.clear()")
