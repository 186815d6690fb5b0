"""What a log shows while a corpus is prepared."""

import pytest

from data import progress


def test_a_log_gets_a_line_per_interval(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    report = progress.ProgressReport(4000)
    report.add(1000, 999, 2000)
    assert capsys.readouterr().err == ""  # too soon
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    report.add(0, 1, 345)
    line = capsys.readouterr().err
    assert "prepare: 25% of the input, 1,000 documents, 2,345 tokens" in line
    assert "tokens/s" in line
    assert "left" in line
    assert line.count("\n") == 1
    assert "\x1b" not in line  # no colours, no cursor movements
    report.close()
