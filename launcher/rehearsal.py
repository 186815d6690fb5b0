"""A run in small before the real one is queued: `launcher/rehearse.sh FLAGS`, the flags being those of train.py.

Teacher and student are cut to two layers and one, of the same width, vocabulary and tokenizer; everything else is the
user's: corpus, objective, DeepSpeed JSON, kernels, disk. Two ranks train a few updates with a checkpoint after each, are
killed while one is being saved, resume, and export. Then all is looked at: what was redone gave the same losses, the
student opens in transformers, no process is left. Exit code 0, or 1 with what failed, or 2 where the flags are refused.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from command_line import parse
from launcher.small_run import UPDATES, Flags, arguments, shrink

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600.0
"""Seconds for each of the two attempts."""
MARK = "DISTILLERY_REHEARSAL"
"""Environment variable by which every process of a rehearsal is known, whoever its parent is by now."""
RELATIVE_ERROR_ON_GPUS = 1e-3
"""Between a loss and the same loss again: GPUs add up in another order each time."""


class RehearsalError(Exception):
    """What failed."""


# -- its processes --


def processes(mark: str) -> Iterator[int]:
    """Those of this rehearsal that are alive."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except OSError:
            continue  # it ended meanwhile, or is another user's


def kill_all(mark: str) -> None:
    """SIGKILL, until none is left."""
    wait_for(lambda: not _kill_once(mark), 30.0, "processes that cannot be killed")


def _kill_once(mark: str) -> bool:
    found = list(processes(mark))
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(found)


def wait_for(happens: Callable[[], bool], seconds: float, otherwise: str, pause: float = 0.05) -> None:
    """
    Errors: RehearsalError that says `otherwise`.
    """
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            raise RehearsalError(f"{otherwise} ({seconds:.0f} s)")
        time.sleep(pause)


def launch(words: list[str], num_ranks: int, mark: str, output: Path) -> subprocess.Popen[bytes]:
    """train.py under torchrun; what it prints goes to `output`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(num_ranks),
        "--master_port",
        port,
    ]
    with output.open("wb") as file:
        return subprocess.Popen(
            [*launcher, str(ROOT / "train.py"), *words],
            env=os.environ | {MARK: mark},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


# -- the rehearsal --


def train_until_killed(words: list[str], num_ranks: int, mark: str, folder: Path) -> dict[int, dict[str, Any]]:
    """The first attempt: killed while a checkpoint is being saved and an older one is complete. Its lines of metrics."""
    checkpoints, output = folder / "run/checkpoints", folder / "first.txt"
    process = launch(words, num_ranks, mark, output)

    def is_saving() -> bool:
        if process.poll() is not None:
            raise RehearsalError(
                f"the first attempt ended by itself with exit code {process.returncode}:\n{tail(output)}"
            )
        return (checkpoints / "latest.json").exists() and any(checkpoints.glob("*.partial"))

    try:
        wait_for(
            is_saving, TIMEOUT, f"the first attempt did not come to a second checkpoint:\n{tail(output)}", pause=0.001
        )
    finally:
        kill_all(mark)
        process.wait()
    torn = [path.name for path in checkpoints.glob("*.partial")]
    if not torn:
        raise RehearsalError("the checkpoint was complete before the kill came: rehearse once more")
    lines = read_metrics(folder)
    print(f"ok: trained to update {max(lines)}, killed while {torn[0]} was being saved", flush=True)
    return lines


def resume(words: list[str], num_ranks: int, mark: str, folder: Path) -> int:
    """The second attempt, to the end. The update it went on from."""
    output = folder / "second.txt"
    newest = json.loads((folder / "run/checkpoints/latest.json").read_text())["checkpoint"]
    process = launch([*words, "--resume"], num_ranks, mark, output)
    try:
        code = process.wait(TIMEOUT)
        if code:
            raise RehearsalError(f"the resumed attempt ended with exit code {code}:\n{tail(output)}")
        wait_for(lambda: not any(processes(mark)), 10.0, "processes were left behind")
    except subprocess.TimeoutExpired:
        raise RehearsalError(f"the resumed attempt did not end in {TIMEOUT:.0f} s:\n{tail(output)}") from None
    finally:
        kill_all(mark)
    if left := [path.name for path in (folder / "run/checkpoints").glob("*.partial")]:
        raise RehearsalError(f"unfinished checkpoints were left behind: {left}")
    print(f"ok: resumed from {newest}, finished, no process and no unfinished checkpoint left", flush=True)
    return int(newest.removeprefix("update-"))


def compare(first: dict[int, dict[str, Any]], second: dict[int, dict[str, Any]], since: int, on_gpu: bool) -> str:
    """That all updates are there, and those made twice gave the same. Raises: RehearsalError."""
    if sorted(second) != list(range(1, UPDATES + 1)):
        raise RehearsalError(f"metrics.jsonl has updates {sorted(second)}, expected 1 to {UPDATES}")
    redone = [update for update in first if update > since]
    if not redone:
        raise RehearsalError(f"no update was made twice: the first attempt has {sorted(first)}, resumed after {since}")
    names = [name for name in first[redone[0]] if name.startswith("loss") or name in ("grad_norm", "tokens")]
    worst = 0.0
    for update in first:
        for name in names:
            before, after = first[update][name], second[update][name]
            if before != after:
                worst = max(worst, abs(before - after) / max(abs(before), abs(after)))
                if not on_gpu or worst > RELATIVE_ERROR_ON_GPUS:
                    raise RehearsalError(f"update {update} made again has {name} {after!r}, it was {before!r}")
    equal = "bit for bit" if not worst else f"to {worst:.0e}"
    return f"updates {redone[0]} to {redone[-1]}, made twice, gave the same losses {equal}"


def check_student(folder: Path) -> str:
    """That transformers opens it, with nothing missing, and predicts with it."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    if any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise RehearsalError(f"{type(model).__name__} does not find its weights in {folder}: {info}")
    tokens = AutoTokenizer.from_pretrained(folder)("a rehearsal", return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(tokens["input_ids"]).logits
    if not bool(torch.isfinite(logits).all()):
        raise RehearsalError("the student's predictions are not finite")
    return f"{type(model).__name__} opens the student and predicts with it"


def read_metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """Update -> its line of training; a last line torn by the kill is left out."""
    text = (folder / "run/metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {line["update"]: line for line in lines if "loss" in line}


def tail(output: Path) -> str:
    """What an attempt said of its end: its own errors, or else its last lines (a launcher's traceback hides the errors)."""
    lines = output.read_text(errors="replace").splitlines() if output.exists() else []
    return "\n".join([line for line in lines if line.startswith("error")] or lines[-25:])


def rehearse(flags: Flags, folder: Path) -> None:
    """
    Errors: RehearsalError with what failed; ValueError and OSError for what the user gave.
    """
    import torch

    gpus = torch.cuda.device_count()
    num_ranks = min(2, gpus) or 2
    small, notes = shrink(flags, folder, num_ranks, gpus > 0)
    for note in [*notes, *(["one GPU here: one rank"] if gpus == 1 else [])]:
        print(note, flush=True)
    words, mark = arguments(small), uuid.uuid4().hex
    first = train_until_killed(words, num_ranks, mark, folder)
    since = resume(words, num_ranks, mark, folder)
    print(f"ok: {compare(first, read_metrics(folder), since, gpus > 0)}", flush=True)
    print(f"ok: {check_student(folder / 'run/student')}", flush=True)


def main(flags: Flags) -> int:
    begun = time.monotonic()
    beside = Path(flags.run.output or "runs/x").absolute().parent  # the disk of the run to be
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=beside))
    try:
        rehearse(flags, folder)
    except (ValueError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RehearsalError as error:
        print(f"rehearsal FAILED after {time.monotonic() - begun:.0f} s: {error}\neverything is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    print(
        f"rehearsal passed in {time.monotonic() - begun:.0f} s: trained, killed in a save, resumed, exported, verified"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(parse(Flags, sys.argv[1:], __doc__ or "", prog="launcher/rehearse.sh")))
