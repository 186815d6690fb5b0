"""Files that are whole or absent."""

import errno
import hashlib
import os
import resource
from pathlib import Path

import pytest

from training.files import FileFacts, LineFile, read_facts, reads_back, rename, write_blocks, write_json


def test_facts_are_those_of_the_bytes(tmp_path: Path) -> None:
    blocks = [b"a" * 5_000_000, bytearray(b"b"), memoryview(b"c" * 100)]
    whole = b"".join(bytes(block) for block in blocks)
    expected = FileFacts(len(whole), hashlib.sha256(whole).hexdigest())
    assert write_blocks(tmp_path / "x", blocks) == expected
    assert read_facts(tmp_path / "x") == expected
    assert (tmp_path / "x").read_bytes() == whole
    assert reads_back(tmp_path / "x", blocks)
    for wrong in ([*blocks, b"d"], blocks[:2], [b"b", *blocks[1:]], []):
        assert not reads_back(tmp_path / "x", wrong)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))  # EFBIG from the kernel, as a quota gives EDQUOT
    try:
        with pytest.raises(OSError, match="File too large"):
            write_json(tmp_path / "x.json", {"new": "longer than ten bytes"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "x.json").read_text() == '{\n  "old": 1\n}\n'


def test_rename_believes_its_eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server carries the rename out, its answer is lost, and the client asks again."""
    (tmp_path / "old").mkdir()
    real = os.rename

    def lossy(old: Path, new: Path) -> None:
        real(old, new)
        raise OSError(errno.ETIMEDOUT, "the answer was lost")

    monkeypatch.setattr(os, "rename", lossy)
    rename(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_rename_gives_up(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename(tmp_path / "absent", tmp_path / "new", attempts=2)


def test_lines_wait_for_room(tmp_path: Path) -> None:
    warnings: list[str] = []
    file = LineFile(tmp_path / "lines", warnings.append)
    file.append("first")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limit[1]))
    try:
        file.append("second")  # its first two bytes fit
        file.append("third")
        with pytest.raises(OSError, match="File too large"):
            file.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    file.append("fourth")
    file.sync()
    file.close()
    assert (tmp_path / "lines").read_text() == "first\nsecond\nthird\nfourth\n"
    assert len(warnings) == 1
    assert "its lines wait in memory" in warnings[0]
