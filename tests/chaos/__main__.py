"""All of it, and the table of outcomes into bench/RESULTS.md. Takes an hour or two on two cores.

python -m tests.chaos [options of pytest]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import TABLE
from tests.chaos.proof import SAVES, UPDATES
from tests.launch import ROOT

HEADING = "## Runs that were killed"
RESULTS = ROOT / "bench/RESULTS.md"
_ABOUT = """\
Real launchers, two CPU ranks (gloo), a toy pair, {updates} updates of 3 micro-batches a rank, a checkpoint every {saves};
{date}, {rows} cells, {failed}:

    python -m tests.chaos

Each fault happens at exactly that point of the program, in a real process. Exit codes are the launcher's and, in
parentheses, each rank's own. Updates lost must be made again. "resumed from 5" was resumed there and gave every
loss and every bit of the final weights of the uninterrupted run; "as torchrun from 5" left, byte for byte, checkpoint and
the metrics, and the end of the journal and the kinds of leftovers, that were resumed there, so that the same start was not
made again.
"""


class Failures:
    """A plugin of pytest: tests that failed have a row too."""

    def __init__(self, rows: Path) -> None:
        self.rows, self.number = rows, 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.number += 1
            name = report.nodeid.split("::")[-1]
            with self.rows.open("a") as file:
                file.write(json.dumps([name, f"**failed** in {report.when}", "?", "?"]) + "\n")


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        os.environ[TABLE], failures = str(rows), Failures(rows)
        here = str(Path(__file__).parent)
        code = pytest.main([here, "--timeout", "1800", *arguments], plugins=[failures])
        found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    if found:
        RESULTS.write_text(replace_section(RESULTS.read_text(), section(found, failures.number)))
    return int(code)


def section(rows: list[list[str]], num_failed: int) -> str:
    about = _ABOUT.format(
        updates=UPDATES,
        saves=SAVES,
        date=time.strftime("%Y-%m-%d"),
        rows=len(rows),
        failed=f"{num_failed} failed" if num_failed else "none failed",
    )
    table = ["| what | outcome | exit code | updates lost |", "|---|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([HEADING, "", about, *table]) + "\n"


def replace_section(text: str, new: str) -> str:
    """`new` in place of the section of the same heading, or at the end."""
    before, found, rest = text.partition(HEADING + "\n")
    if not found:
        return f"{text.rstrip()}\n\n{new}"
    _, heading, after = rest.partition("\n## ")
    return f"{before}{new}" + (f"\n## {after}" if heading else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
