"""What tests of the table read out of it and out of its refusals."""

import pytest

from evaluation.table import command_line


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def refusal(capfd: pytest.CaptureFixture[str], *flags: object) -> str:
    assert command_line([str(flag) for flag in flags]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("error: ")
    return printed.err.splitlines()[-1]
