"""What a check of the start-up doctor says."""

from typing import NamedTuple

OK, WARNING, FAILED = "ok", "warning", "FAILED"


class Finding(NamedTuple):
    """One line. What is not ok says why that matters and what to do."""

    state: str
    found: str
    why: str = ""
    action: str = ""

    @property
    def line(self) -> str:
        return f"{self.state}: " + " - ".join(part for part in (self.found, self.why, self.action) if part)


def ok(found: str) -> Finding:
    return Finding(OK, found)


def warning(found: str, why: str, action: str) -> Finding:
    return Finding(WARNING, found, why, action)


def failed(found: str, why: str, action: str) -> Finding:
    return Finding(FAILED, found, why, action)
