"""A checkpoint's folder: damaged it is refused, and well signed it is still only read as what it is."""

import json
import struct

import torch

from tests.fuzz.target import Folder, Target, pack, unpack
from training.files import read_facts, write_blocks
from training.manifest import NAME, STATE, DamagedError, Manifest, check_file, rank_file, read_manifest, write_manifest
from training.tensor_file import SavedParts, as_blocks

_FILES = (NAME, STATE, rank_file(0), rank_file(1))
_TYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}


class CheckpointFiles:
    """A folder with a checkpoint of two ranks, whose files an input replaces."""

    def __init__(self) -> None:
        self.folder = Folder("update-00000003")
        path = self.folder.path
        for rank in range(2):
            values = torch.arange(5.0) + rank
            tensors = {
                "group0.master": values,
                "group0.step": torch.tensor(3.0),
                "losses": torch.ones(2, dtype=torch.float64),
                "empty": torch.empty(0),
            }
            write_blocks(path / rank_file(rank), as_blocks(tensors))
        write_blocks(path / STATE, [json.dumps({"update": 3, "identity": {}}).encode()])
        self.sign()
        self.files = {name: (path / name).read_bytes() for name in _FILES}

    def sign(self) -> None:
        facts = {name: read_facts(self.folder.path / name) for name in _FILES[1:]}
        write_manifest(self.folder.path, Manifest(3, 2, facts))

    def run(self, data: bytes) -> bool:
        """One byte that says whether a manifest of the damaged files is made, then the four files."""
        signed, *contents = unpack(data, 1 + len(_FILES))
        for name, content in zip(_FILES, contents, strict=True):
            self.folder.write(name, content)
        is_signed = signed[:1] == b"\1" and all(contents[1:])
        if is_signed:
            self.sign()
        accepted = self.folder.attempt(self.read)
        if is_signed:
            self.folder.forget(NAME)  # it was written behind the folder's back
        if accepted is None:
            return False
        if not is_signed:
            assert dict(zip(_FILES[1:], contents[1:], strict=True)) == {name: self.files[name] for name in _FILES[1:]}
        return True

    def read(self) -> bool:
        path = self.folder.path
        manifest = read_manifest(path)
        for name, facts in manifest.files.items():
            check_file(path, name, facts)
        saved = SavedParts(path, manifest.num_ranks)
        for rank in range(manifest.num_ranks):
            expected = tensors_by_hand((path / rank_file(rank)).read_bytes())
            for name, (kind, shape, raw) in expected.items():
                if kind in _TYPES:
                    tensor = saved.of_rank(rank, name)
                    assert (list(tensor.shape), tensor.dtype) == (shape, _TYPES[kind])
                    assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == raw
        for name in saved.vectors("group0."):
            saved.part(f"group0.{name}", 0, saved.length(f"group0.{name}"))
        saved.numbers("group0.")
        return True


def tensors_by_hand(content: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors of a safetensors file as its format describes them."""
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def checkpoint_target() -> Target:
    """Errors that name no file are failures, DamagedError is a ValueError."""
    assert issubclass(DamagedError, ValueError)
    files = CheckpointFiles()
    seeds = [pack([sign, *(files.files[name] for name in _FILES)]) for sign in (b"\0", b"\1")]
    return Target(run=files.run, seeds=seeds, num_parts=1 + len(_FILES))
