"""runs/NAME/{config.json, metrics.jsonl, tensorboard/, log.txt, ...}, written by rank 0."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from folders import fsync_folder
from training.config import RunConfig
from training.files import LineFile, write_blocks, write_json
from training.lifecycle import tell
from training.metrics import tensorboard_tag
from training.parts import PARTS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def choose_folder(config: RunConfig) -> Path:
    """Where to write; an existing run is neither overwritten nor continued by accident."""
    folder = Path(config.output or time.strftime("runs/%Y-%m-%d_%H-%M-%S"))
    if (folder / "config.json").exists() and not config.resume:
        raise ValueError(f"--output {folder} already holds a run: continue it with --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class RunFolder:
    """Starts the records of a run with `start_update` 0, or continues those of an earlier start from that update."""

    def __init__(self, path: Path, config: dict[str, Any], start_update: int, num_updates: int) -> None:
        self.path = path
        self._log = LineFile(path / "log.txt", warn=_complain)
        if start_update == 0:
            shutil.rmtree(path / "tensorboard", ignore_errors=True)  # of a start that saved nothing
            (path / "metrics.jsonl").unlink(missing_ok=True)
            write_json(path / "config.json", config)
        else:
            self._forget_after(start_update)
        self._metrics = LineFile(path / "metrics.jsonl", warn=self.say)
        self._tensorboard: SummaryWriter | None = None
        self._open_tensorboard(None if start_update == 0 else start_update + 1)
        if start_update == 0:
            self._draw(lambda board: board.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0))
        self._has_layout = False
        self._bar = tqdm(
            total=num_updates,
            initial=start_update,
            unit="update",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            colour=None if "NO_COLOR" in os.environ else "green",
        )

    def say(self, line: str) -> None:
        """One line on the console and in log.txt."""
        with tqdm.external_write_mode(file=sys.stdout):
            tell(line, sys.stdout)
        self._log.append(line)

    def advance(self) -> None:
        self._bar.update()

    def record(self, fields: dict[str, Any]) -> None:
        """A line of metrics.jsonl and its points in TensorBoard; `fields` start with the update."""
        known = {name: value for name, value in fields.items() if not (isinstance(value, float) and math.isnan(value))}
        self._metrics.append(json.dumps({name: known.get(name) for name in fields}))
        self._draw(lambda board: self._add_points(board, known))

    def sync(self) -> None:
        """The metrics so far are on the disk when this returns. Errors: OSError."""
        self._metrics.sync()

    def close(self) -> None:
        self._bar.close()
        self._metrics.close()
        self._draw(lambda board: board.close())
        self._log.close()

    def _add_points(self, board: "SummaryWriter", fields: dict[str, Any]) -> None:
        if not self._has_layout and "loss" in fields:
            tags = [
                tensorboard_tag(name)
                for name in fields
                if name == "loss" or (name.startswith("loss_") and name != "loss_scale")
            ]
            board.add_custom_scalars({"loss": {"components": ["Multiline", tags]}})
            self._has_layout = True
        for name, value in fields.items():
            if name != "update":
                board.add_scalar(tensorboard_tag(name), value, fields["update"])
        board.flush()

    def _draw(self, draw: Callable[["SummaryWriter"], None]) -> None:
        """A disk that is full costs points of a chart; metrics.jsonl keeps all of them."""
        try:
            if self._tensorboard is None:
                self._open_tensorboard(None)
            assert self._tensorboard is not None
            draw(self._tensorboard)
        except OSError as error:
            if self._tensorboard is not None:
                self.say(f"warning: TensorBoard's file cannot be written ({error}); metrics.jsonl has every point")
            self._tensorboard = None

    def _open_tensorboard(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=purge_step)

    def _forget_after(self, update: int) -> None:
        """Lines past the checkpoint belong to updates that will be made again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A crash can leave a last line without its end; it is past the checkpoint too.
        kept = [line for line in lines if line.endswith("\n") and _update_of(line) <= update]
        partial = path.with_name("metrics.jsonl.partial")
        write_blocks(partial, ["".join(kept).encode()])
        os.replace(partial, path)
        fsync_folder(self.path)


def _update_of(line: str) -> float:
    """Infinite for a line that no longer is one, as a crash may leave it on some file systems."""
    try:
        return json.loads(line)["update"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _complain(line: str) -> None:
    tell(line, sys.stderr)


def describe(fields: dict[str, Any], num_updates: int) -> str:
    """A line of metrics for people."""
    if "loss" not in fields:
        figures = "  ".join(
            f"{name.removeprefix('eval_')} {value:.4f}" for name, value in fields.items() if name != "update"
        )
        return f"held-out at update {fields['update']}: {figures}"
    parts = [f"update {fields['update']}/{num_updates}", f"loss {fields['loss']:.4f}"]
    for name in ("distillation", "mlm", "cosine"):
        if f"loss_{name}" in fields:
            parts.append(f"{name} {fields[f'loss_{name}']:.4f}")
    parts.append(f"lr {fields['learning_rate']:.2e}")
    parts.append(f"grad {fields['grad_norm']:.2f}")
    parts.append(f"{fields['tokens_per_second']:,.0f} tokens/s")
    parts.append(f"MFU {fields['mfu']:.0%}")
    parts.append(f"data wait {fields['data_wait_share']:.1%}")
    parts += [f"{part} {fields[f'{part}_share']:.0%}" for part in PARTS]
    return "  ".join(parts)
