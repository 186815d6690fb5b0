"""The lock that torch takes while it compiles an extension, and leaves behind when it is killed meanwhile.

DeepSpeed compiles its shared-memory communication at the first start on CPUs. torch guards that by a file `lock`, which it
creates, keeps open while it compiles, and deletes; who finds it waits for it to vanish, without end. A process killed in
those 30 seconds therefore makes every later start hang, silently.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from training.lifecycle import ExitCode

EXTENSION = "deepspeed_shm_comm"
STALE_AFTER = 600.0
"""Seconds. Compiling takes 30; another host that shares the folder cannot be asked."""
_POLL_SECONDS = 0.5


class Lock(NamedTuple):
    path: Path
    age: float
    """Seconds since it was created."""
    holder: int | None
    """Process of this host that has it open: the one that compiles."""

    @property
    def is_stale(self) -> bool:
        return self.holder is None and self.age > STALE_AFTER


def extension_folder() -> Path:
    """Where torch keeps what it compiles here."""
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def find_locks(folder: Path) -> list[Lock]:
    """The extension's locks under `folder`, directly (TORCH_EXTENSIONS_DIR) or for each version of Python."""
    found = []
    for path in sorted((*folder.glob(f"{EXTENSION}/lock"), *folder.glob(f"*/{EXTENSION}/lock"))):
        lock = _look_at(path)
        if lock is not None:
            found.append(lock)
    return found


def remove_stale(path: Path) -> bool:
    """Delete a lock if it is stale, and say whether it was.

    Judged again while the folder is locked, so that of several ranks one deletes it, and none the new lock of the one that
    then compiles: whoever creates a lock never replaces one.

    Raises:
        OSError: the folder cannot be written to or locked; the message says what to do.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lock = _look_at(path)
        if lock is None or not lock.is_stale:
            return False
        path.unlink()
        return True
    except OSError as error:
        raise OSError(
            f"{path} was left behind by a process that was killed while it compiled; DeepSpeed would wait for it for ever. "
            f"It cannot be deleted from here ({error.strerror}). Delete it: rm {path}"
        ) from None
    finally:
        os.close(folder)


def clear_stale_locks(folder: Path | None = None) -> None:
    """Before DeepSpeed starts: delete stale locks; wait for one that nobody here holds until it is gone or stale.

    Ends the process as BAD_INPUT where a stale lock cannot be deleted.
    """
    for lock in find_locks(extension_folder() if folder is None else folder):
        has_said = False
        current: Lock | None = lock
        while current is not None and current.holder is None:  # torch's own wait is safe where the holder lives
            if _remove_or_end(lock.path):
                print(
                    f"deleted the stale lock {lock.path}: {lock.age / 60:.0f} minutes old, nobody compiles", flush=True
                )
                break
            if not has_said:
                print(
                    f"waiting for {lock.path}: no process of this host holds it; another host may be compiling. "
                    f"It is deleted when it is {STALE_AFTER / 60:.0f} minutes old ({lock.age / 60:.1f} now)",
                    flush=True,
                )
                has_said = True
            time.sleep(_POLL_SECONDS)
            current = _look_at(lock.path)


def _remove_or_end(path: Path) -> bool:
    try:
        return remove_stale(path)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(int(ExitCode.BAD_INPUT)) from None


def _look_at(path: Path) -> Lock | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return Lock(path, max(0.0, time.time() - status.st_mtime), _holder(status))


def _holder(status: os.stat_result) -> int | None:
    """A process that has the file open. Those of other users show nothing, but do not build in our folder either."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for descriptor in os.scandir(process / "fd"):
                try:
                    opened = descriptor.stat()
                except OSError:
                    continue
                if (opened.st_dev, opened.st_ino) == (status.st_dev, status.st_ino):
                    return int(process.name)
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return None
