"""One rank's part of a checkpoint on its way from memory to the disk, beside training."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.files import FileFacts, reads_back, write_blocks
from training.manifest import STATE, rank_file
from training.tensor_file import as_blocks


class Snapshot:
    """Copies of tensors in host memory that is allocated once, so that writing them does not race with training."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous CPU copies; overwritten by the next call."""
        copies, on_device = {}, set()
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name] = buffer.copy_(tensor, non_blocking=True)
            if tensor.is_cuda:
                on_device.add(tensor.device)
        for device in on_device:
            torch.cuda.current_stream(device).synchronize()
        self._buffers = copies
        return copies


class ShardWriter:
    """Writes one rank's files and reads them back."""

    def __init__(self, folder: Path, rank: int, state: dict[str, Any] | None) -> None:
        self.facts: dict[str, FileFacts] = {}
        self.problem = ""
        self._thread: threading.Thread | None = None
        self._folder, self._rank, self._state = folder, rank, state

    def start(self, tensors: dict[str, Tensor]) -> None:
        """In the background, and politely: the processors are training's."""
        thread = threading.Thread(target=self._write_politely, args=(tensors,), name="checkpoint", daemon=True)
        thread.start()
        self._thread = thread

    @property
    def is_writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _write_politely(self, tensors: dict[str, Tensor]) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux, of this thread alone
        self.write(tensors)

    def write(self, tensors: dict[str, Tensor]) -> None:
        """Now. What goes wrong is kept in `problem`."""
        try:
            self._write(rank_file(self._rank), as_blocks(tensors))
            if self._state is not None:
                self._write(STATE, [json.dumps(self._state, indent=1).encode()])
        except Exception as error:  # whatever it is, this checkpoint does not exist and training must know
            self.problem = f"{type(error).__name__}: {error}"

    def _write(self, name: str, blocks: list[Any]) -> None:
        path = self._folder / name
        facts = write_blocks(path, blocks)
        if not reads_back(path, blocks):
            raise OSError(f"{path} does not read back as it was written")
        self.facts[name] = facts
