"""One rank's tensors as a safetensors file: the buffers to write, without a second copy, and reading those of all ranks."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.manifest import DamagedError, rank_file

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8", torch.int32: "I32"}


def as_blocks(tensors: dict[str, Tensor]) -> list[Any]:
    """Contiguous CPU tensors -> the buffers that, end to end, are a safetensors file of them."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = [tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors.values() if tensor.numel()]
    return [struct.pack("<Q", len(text)) + text, *data]


class SavedParts:
    """The tensors of all ranks of a verified checkpoint, read a slice at a time (see training.state.Pieces)."""

    def __init__(self, folder: Path, num_ranks: int) -> None:
        self._paths = [folder / rank_file(rank) for rank in range(num_ranks)]
        try:
            self._files = [safe_open(str(path), framework="pt") for path in self._paths]
        except SafetensorError as error:
            raise DamagedError(f"{folder} holds a file that is no safetensors file ({error})") from None

    def length(self, name: str) -> int:
        return sum(self._lengths(name))

    def part(self, name: str, start: int, stop: int) -> Tensor:
        parts, begin = [], 0
        for file, length in zip(self._files, self._lengths(name), strict=True):
            low, high = max(start - begin, 0), min(stop - begin, length)
            if low < high:
                parts.append(file.get_slice(name)[low:high])
            begin += length
        return torch.cat(parts)

    def numbers(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self.of_rank(0, name) for name in self._names(prefix, has_dimensions=False)}

    def vectors(self, prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in self._names(prefix, has_dimensions=True)]

    def _names(self, prefix: str, has_dimensions: bool) -> list[str]:
        file = self._files[0]
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no mapping
        return [name for name in names if bool(file.get_slice(name).get_shape()) == has_dimensions]

    def of_rank(self, rank: int, name: str) -> Tensor:
        if name not in self._files[rank].keys():  # noqa: SIM118 - a safetensors file is no mapping
            raise ValueError(
                f"{self._paths[rank]} has no tensor {name!r}: it was saved with another optimizer or device"
            )
        return self._files[rank].get_tensor(name)

    def _lengths(self, name: str) -> list[int]:
        for rank, file in enumerate(self._files):
            if name not in file.keys():  # noqa: SIM118
                raise ValueError(f"{self._paths[rank]} has no tensor {name!r}: it was saved with another optimizer")
        return [file.get_slice(name).get_shape()[0] for file in self._files]
