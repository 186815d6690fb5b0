"""runs/NAME/{config.json, metrics.jsonl, tensorboard/, checkpoints/, student/, profile/, log.txt}, written by rank 0."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.config import RunConfig
from training.metrics import tensorboard_tag
from training.parts import PARTS


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def choose_folder(config: RunConfig) -> Path:
    """Where to write; an existing run is neither overwritten nor continued by accident."""
    folder = Path(config.output or time.strftime("runs/%Y-%m-%d_%H-%M-%S"))
    if (folder / "config.json").exists() and not config.resume:
        raise ValueError(f"--output {folder} already holds a run: continue it with --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class RunFolder:
    """Opens a new run folder, or with `resumed_at` continues one from that update."""

    def __init__(self, path: Path, config: dict[str, Any], resumed_at: int | None, num_updates: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._log = (path / "log.txt").open("a", encoding="utf-8")
        if resumed_at is None:
            write_json(path / "config.json", config)
        else:
            self._forget_after(resumed_at)
        self._metrics = (path / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(
            str(path / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1
        )
        if resumed_at is None:
            self._tensorboard.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)
        self._has_layout = False
        self._bar = tqdm(
            total=num_updates,
            initial=resumed_at or 0,
            unit="update",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            colour=None if "NO_COLOR" in os.environ else "green",
        )

    def say(self, line: str) -> None:
        """One line on the console and in log.txt."""
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)
        self._log.write(line + "\n")
        self._log.flush()

    def advance(self) -> None:
        self._bar.update()

    def record(self, fields: dict[str, Any]) -> None:
        """A line of metrics.jsonl and its points in TensorBoard; `fields` start with the update."""
        self._metrics.write(json.dumps(fields) + "\n")
        self._metrics.flush()
        update = fields["update"]
        if not self._has_layout and "loss" in fields:
            tags = [
                tensorboard_tag(name)
                for name in fields
                if name == "loss" or (name.startswith("loss_") and name != "loss_scale")
            ]
            self._tensorboard.add_custom_scalars({"loss": {"components": ["Multiline", tags]}})
            self._has_layout = True
        for name, value in fields.items():
            if name != "update" and value is not None:
                self._tensorboard.add_scalar(tensorboard_tag(name), value, update)
        self._tensorboard.flush()

    def close(self) -> None:
        self._bar.close()
        self._metrics.close()
        self._tensorboard.close()
        self._log.close()

    def _forget_after(self, update: int) -> None:
        """Lines past the checkpoint belong to updates that will be made again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A crash can leave a last line without its end; it is past the checkpoint too.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["update"] <= update]
        partial = path.with_name("metrics.jsonl.partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, path)


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
