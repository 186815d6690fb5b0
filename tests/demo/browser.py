"""The page in a real browser: opened, waited for, written into with keys, read."""

import time
from typing import Any

from tests.evaluation.report.chromium import Chromium

TEXT_OF = "document.getElementById({!r}).textContent"


class Browser(Chromium):
    """Chromium with the page in it."""

    def visit(self, url: str, *, width: int = 800, scheme: str = "light") -> None:
        """As `open`, for an address."""
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def text(self, element: str) -> str:
        found: str = self.evaluate(TEXT_OF.format(element))
        return found

    def state(self, model: str = "student") -> str:
        found: str = self.evaluate(f"document.querySelector('#{model} .state').textContent")
        return found

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """The first value of an expression that is true in JavaScript."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < end, (
                condition,
                self.text("alert"),
                self.text("answer"),
                self.state(),
                self.complaints(),
            )
            time.sleep(0.05)
        return value

    def wait_until_checked(self, model: str = "student", seconds: float = 60) -> str:
        self.wait(f"/was exported/.test(document.querySelector('#{model} .state').textContent)", seconds)
        return self.state(model)

    def fill(self, element: str, text: str) -> None:
        self.evaluate(f"document.getElementById({element!r}).focus(), document.getElementById({element!r}).select()")
        self("Input.insertText", text=text) if text else self.press("Delete", 46)

    def press(self, key: str, code: int, modifiers: int = 0, text: str = "") -> None:
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def answers(self, seconds: float = 60, models: int = 1) -> list[list[str]]:
        """The rows of the table, when so many models have answered."""
        rows = "[...document.querySelectorAll('#figures tbody tr')]"
        self.wait(f"!document.getElementById('figures').hidden && {rows}.length >= {models}", seconds)
        found: list[list[str]] = self.evaluate(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))")
        return found

    def ask(self, question: str, text: str, seconds: float = 60, models: int = 1) -> list[list[str]]:
        """With the keyboard."""
        self.fill("text", text)
        self.fill("question", question)
        self.press("Enter", 13, text="\r")
        return self.answers(seconds, models)

    def ask_and_read(self, question: str, text: str) -> str:
        """What is said of the answer."""
        self.ask(question, text)
        return self.text("answer")
