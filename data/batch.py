"""A micro-batch of packed sequences: the one thing that the data path hands to the models.

Shapes: T real tokens of a micro-batch, S its sequences, M its masked positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from data.corpus import Masker
from data.masking import Int64


class Sequences(Protocol):
    """A corpus, or a blend of several."""

    num_sequences: int

    def lengths(self, sequence_ids: npt.ArrayLike) -> Int64: ...
    def packed(self, sequence_ids: npt.ArrayLike) -> tuple[Int64, Int64]: ...
    def masker(self, *, seed: int, probability: float, smoothing: float) -> Masker: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A micro-batch, packed: every tensor holds real tokens only."""

    token_ids: torch.Tensor
    """(T,) int64, corrupted: what teacher and student read."""
    position_ids: torch.Tensor
    """(T,) int64, from 0 in every sequence."""
    cu_seqlens: torch.Tensor
    """(S + 1,) int32: sequence s is the tokens [cu_seqlens[s], cu_seqlens[s + 1])."""
    max_seqlen: int
    """Tokens of the longest sequence."""
    masked_positions: torch.Tensor
    """(M,) int64, ascending indices into the packed tokens."""
    masked_labels: torch.Tensor
    """(M,) int64: the true tokens at masked_positions."""
    sequence_ids: Int64
    """(S,) numpy, stays on the host: names the sequences when something goes wrong."""

    @property
    def num_tokens(self) -> int:
        """T, without asking the device."""
        return self.token_ids.shape[0]

    def tensors(self) -> list[torch.Tensor]:
        """All that moves to a device."""
        return [value for f in fields(self) if isinstance(value := getattr(self, f.name), torch.Tensor)]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """The batch on a device; asynchronous when it is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a copy to a GPU does not hold up the host."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(t) for name, t in tensors.items() if isinstance(t, torch.Tensor)})


def make_batch(source: Sequences, masker: Masker, sequence_ids: Int64, epochs: Int64) -> Batch:
    """Read, pack and mask the sequences (S,), each in its epoch (S,)."""
    tokens, cu_seqlens = source.packed(sequence_ids)
    corrupted, positions, labels = masker(tokens, cu_seqlens, sequence_ids, epochs)
    lengths = np.diff(cu_seqlens)
    return Batch(
        token_ids=torch.from_numpy(corrupted),
        position_ids=torch.from_numpy(np.arange(len(tokens)) - np.repeat(cu_seqlens[:-1], lengths)),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
        max_seqlen=int(lengths.max()),
        masked_positions=torch.from_numpy(positions),
        masked_labels=torch.from_numpy(labels),
        sequence_ids=sequence_ids,
    )
