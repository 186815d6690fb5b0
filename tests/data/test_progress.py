"""What a log shows while a corpus is prepared."""

from pathlib import Path

import pytest

from data import progress
from data.sources import InputProgress, read_documents


def test_a_log_gets_a_line_per_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.txt"
    source.write_text("document\n\n" * 4000)
    read = InputProgress([str(source)])
    report = progress.ProgressReport(read)
    documents = read_documents([str(source)], progress=read)
    for _ in range(1000):
        next(documents)
    report.update(1000, 2345)
    assert capsys.readouterr().err == ""  # too soon
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    report.update(1000, 2345)
    line = capsys.readouterr().err
    assert "1,000 documents, 2,345 tokens" in line
    assert "tokens/s" in line
    assert "left" in line
    assert line.count("\n") == 1
    assert "\x1b" not in line  # no colours, no cursor movements
    share = int(line.split("%")[0].split()[-1])
    assert 20 <= share <= 50  # a quarter is used; reading is buffered
    report.close()
