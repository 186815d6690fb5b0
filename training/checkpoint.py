"""Checkpoints that are committed: staged, hashed, fsynced, listed in a manifest, renamed, and only then pointed at.

    checkpoints/update-00000100/            manifest.json, state.json, rank_000.safetensors of every rank
    checkpoints/update-00000100.x1y2.partial/   being written, or what a crash left of one
    checkpoints/latest.json                 the newest committed one, for scripts; loading looks at the folders themselves

Training waits for a copy in memory only; each rank writes its copy in the background while the next updates are computed.
The ranks agree at the end of an update that all have written theirs, then rank 0 commits. A save that fails on any rank is
cleaned up and reported, and the checkpoints from before stay.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from folders import fsync_folder
from training.distributed import Ranks
from training.exchange import Collectives, Exchange
from training.files import FileFacts, rename, write_json
from training.lifecycle import SaveFailedError
from training.manifest import DamagedError, Manifest, read_manifest, write_manifest
from training.resume_point import checkpoint_folders, update_of
from training.shard import ShardWriter, Snapshot


@dataclass
class _Save:
    """A checkpoint between its snapshot and its commit."""

    update: int
    staging: Path
    writer: ShardWriter
    started: float
    stalled: float


class Checkpoints:
    """The checkpoints of a run. Methods marked "together" are called by every rank.

    On rank 0, `say` prints, `before` is called before a save and before its commit (an OSError of it fails the save), and
    `after` is told the update of a checkpoint that was committed.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        *,
        keep: int,
        max_failures: int,
        say: Callable[[str], None],
        before: Callable[[], None],
        after: Callable[[int], None],
    ) -> None:
        self.folder, self.ranks, self.keep, self.max_failures = folder, ranks, keep, max_failures
        self.say, self.before, self.after = say, before, after
        self.exchange: Exchange = Collectives(ranks)
        self.newest: int | None = None
        """Update of the newest checkpoint that was committed or loaded."""
        self._snapshot = Snapshot()
        self._save: _Save | None = None
        self._failures = 0
        self._cleaner: threading.Thread | None = None
        if ranks.is_first and folder.is_dir():
            self._remove(list(folder.glob("update-*.partial")))

    def continue_from(self, update: int) -> None:
        """That checkpoint was loaded. A crash before the pointer was written, or damage, left it at another one."""
        self.newest = update
        if self.ranks.is_first:
            try:
                self._point_at(update)
            except OSError as error:
                self.say(f"warning: {self.folder / 'latest.json'} cannot be written: {error}")

    def _point_at(self, update: int) -> None:
        write_json(self.folder / "latest.json", {"checkpoint": f"update-{update:08d}"})

    @property
    def is_writing(self) -> bool:
        return self._save is not None and self._save.writer.is_writing

    @property
    def is_pending(self) -> bool:
        """Alike on every rank."""
        return self._save is not None

    def begin(self, state: dict[str, Any], tensors: dict[str, Tensor], in_place: bool = False) -> None:
        """Together: start saving `tensors` of this rank, and `state`, which names its `update` and is rank 0's.

        Waits for the save before, if that is still being written. With `in_place` nothing is copied, no thread is started,
        and all is written on return: for a process that has no memory left and will not change the tensors.
        """
        self.finish()
        started, update = time.perf_counter(), state["update"]
        if update == self.newest:
            return
        name, problem = self.exchange.from_first(self._stage(update) if self.ranks.is_first else ["", ""])
        staging = self.folder / name
        if problem:
            self._fail(update, problem)
            return
        writer = ShardWriter(staging, self.ranks.rank, state if self.ranks.is_first else None)
        if in_place:
            writer.write({name: tensor.cpu() for name, tensor in tensors.items()})
        else:
            try:
                writer.start(self._snapshot.take(tensors))
            except (MemoryError, RuntimeError) as error:  # of this rank alone: all learn of it when they finish
                writer.problem = f"no memory or thread for a copy: {error}"
        self._save = _Save(update, staging, writer, started, time.perf_counter() - started)

    def finish(self) -> None:
        """Together: wait until every rank has written the save in progress, and commit it.

        Errors: SaveFailedError after `max_failures` saves in a row.
        """
        if self._save is None:
            return
        save, self._save = self._save, None
        waiting = time.perf_counter()
        save.writer.join()
        written: dict[str, list[Any]] = {name: [facts.size, facts.sha256] for name, facts in save.writer.facts.items()}
        results = self.exchange.gather((written, save.writer.problem))
        problems = [f"rank {rank}: {problem}" for rank, (_, problem) in enumerate(results) if problem]
        problem = "; ".join(problems[:3])
        files = {name: FileFacts(int(size), str(sha)) for listed, _ in results for name, (size, sha) in listed.items()}
        if not problem:
            manifest = Manifest(save.update, self.ranks.num_ranks, files)
            problem = self.exchange.from_first(self._commit(save.staging, manifest) if self.ranks.is_first else "")
        if problem:
            if self.ranks.is_first:
                self._remove([save.staging])
            self._fail(save.update, problem)
            return
        self._failures, self.newest = 0, save.update
        if self.ranks.is_first:
            size = sum(facts.size for facts in files.values())
            now = time.perf_counter()
            self.say(
                f"checkpoint of update {save.update}: {size / 1e6:,.1f} MB committed after {now - save.started:.2f} s, of "
                f"which training waited {save.stalled + now - waiting:.2f} s"
            )

    def _stage(self, update: int) -> list[str]:
        """Rank 0: the name of a folder that no crash can have left behind, and the reason if there is none."""
        staging = self.folder / f"update-{update:08d}.{uuid.uuid4().hex[:8]}.partial"
        try:
            self.before()
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                fsync_folder(self.folder.parent)
            staging.mkdir()
        except OSError as error:
            return [staging.name, str(error)]
        return [staging.name, ""]

    def _commit(self, staging: Path, manifest: Manifest) -> str:
        """Rank 0: from a staged folder to a checkpoint; the reason if that failed."""
        final, replaced = self.folder / f"update-{manifest.update:08d}", list[Path]()
        try:
            self.before()
            write_manifest(staging, manifest)
            if final.exists():  # skipped when loading because it is damaged
                replaced.append(final.with_name(f"{final.name}.{uuid.uuid4().hex[:8]}.partial"))
                rename(final, replaced[0])
            rename(staging, final)
            if read_manifest(final) != manifest:
                return f"{final} does not read back as it was written"
        except (OSError, DamagedError) as error:
            return str(error)
        self._prune(manifest.update, replaced)
        try:  # it is committed, whatever happens to what is written about it
            self._point_at(manifest.update)
            self.after(manifest.update)
        except OSError as error:
            self.say(f"warning: checkpoint {final} is complete, but could not be noted: {error}")
        return ""

    def _prune(self, update: int, outdated: list[Path]) -> None:
        """Rank 0: `outdated`, and all but the newest `keep` up to `update`; renamed first, so that none is ever half there.

        A newer one did not verify when the run was resumed; it goes when its update is saved again.
        """
        for old in [path for path in checkpoint_folders(self.folder) if update_of(path) <= update][self.keep :]:
            doomed = old.with_name(f"{old.name}.{uuid.uuid4().hex[:8]}.partial")
            try:
                os.rename(old, doomed)
            except OSError as error:
                self.say(f"warning: the old checkpoint {old} cannot be removed: {error}")
                continue
            outdated.append(doomed)
        self._remove(outdated)

    def _remove(self, folders: list[Path]) -> None:
        """In the background: freeing gigabytes takes a file system a while."""
        if self._cleaner is not None:
            self._cleaner.join()
        self._cleaner = threading.Thread(target=_remove_all, args=(folders,), name="cleaner", daemon=True)
        self._cleaner.start()

    def close(self) -> None:
        """Wait until what is outdated is gone: nobody may start this run again and clean up."""
        if self._cleaner is not None:
            self._cleaner.join()

    def _fail(self, update: int, problem: str) -> None:
        self._failures += 1
        kept = "none before it" if self.newest is None else f"that of update {self.newest} is kept"
        message = (
            f"the checkpoint of update {update} could not be written ({problem}); {kept}. "
            f"Check space, quota and permissions of {self.folder}"
        )
        if self._failures >= self.max_failures:
            raise SaveFailedError(f"{message}. {self._failures} saves in a row have failed")
        if self.ranks.is_first:
            self.say(
                f"warning: {message}; training goes on ({self._failures} of {self.max_failures} failures in a row)"
            )


def _remove_all(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
