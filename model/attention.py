"""Attention over packed sequences: everything else in the encoder sees only real tokens; sequences matter here alone.

Five backends behind one name. Three read the packed layout directly: `varlen` (flash attention, GPU), `native` (our C++)
and `blocked` (torch, CPU). `sdpa` and `softmax` want a padded (S * L) block, into which the encoder unpacks once before
its layers and packs again after them; `softmax` is the path of the fused softmax.

Shapes: T real tokens, S sequences, L the longest, A heads, D width of a head.
"""

import importlib.util
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.blocked_attention import blocked_attention
from model.kernels.native.attention import native_attention
from model.kernels.softmax import scaled_masked_softmax


class Packing(NamedTuple):
    """Where the sequences of a packed batch are."""

    cu_seqlens: Tensor
    """(S+1,) int32: sequence s holds tokens [cu_seqlens[s], cu_seqlens[s+1])."""
    max_seqlen: int
    slots: Tensor | None
    """(T,) place of each token in the padded (S * L) block; None where nothing is padded or nobody asks."""
    key_mask: Tensor | None
    """(S, 1, 1, L) true at real tokens; None as above."""

    @property
    def num_sequences(self) -> int:
        return self.cu_seqlens.shape[0] - 1

    def unpack(self, hidden: Tensor) -> Tensor:
        """(T, H) -> (S * L, H), zeros between the sequences; once for all layers, which then see padding too."""
        if self.slots is None:
            return hidden
        block = hidden.new_zeros(self.num_sequences * self.max_seqlen, hidden.shape[1])
        return block.index_copy(0, self.slots, hidden)

    def pack(self, hidden: Tensor) -> Tensor:
        """(S * L, H) -> (T, H)."""
        return hidden if self.slots is None else hidden.index_select(0, self.slots)


def make_packing(position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, backend: str) -> Packing:
    """The index work of a batch, done once for all layers. No host synchronisation: shapes decide."""
    num_tokens, num_sequences = position_ids.shape[0], cu_seqlens.shape[0] - 1
    if backend in ("varlen", "native", "blocked") or num_tokens == num_sequences * max_seqlen:
        return Packing(cu_seqlens, max_seqlen, None, None)
    lengths = cu_seqlens.diff()
    sequence_of_token = torch.repeat_interleave(lengths, output_size=num_tokens)
    slots = sequence_of_token * max_seqlen + position_ids
    key_mask = torch.arange(max_seqlen, device=lengths.device) < lengths[:, None]
    return Packing(cu_seqlens, max_seqlen, slots, key_mask[:, None, None, :])


def attend(qkv: Tensor, packing: Packing, backend: str, dropout: float, softmax_kernel: str = "torch") -> Tensor:
    """Multi-head attention within each sequence.

    qkv (T, 3, A, D) -> (T, A * D), for `sdpa` and `softmax` of the rows that `Packing.unpack` made. `dropout` is applied to
    the attention weights; pass 0 in evaluation. `softmax_kernel` is the implementation that the `softmax` backend uses.
    """
    if backend == "varlen":
        return _attend_varlen(qkv, packing, dropout)
    if backend == "native":
        return native_attention(qkv, packing.cu_seqlens, dropout)
    if backend == "blocked":
        return blocked_attention(qkv, packing.cu_seqlens, dropout)
    return _attend_padded(qkv, packing, backend, dropout, softmax_kernel)


def _attend_varlen(qkv: Tensor, packing: Packing, dropout: float) -> Tensor:
    cu_seqlens, longest = packing.cu_seqlens, packing.max_seqlen
    query, key, value = qkv.unbind(1)
    if dropout > 0.0:  # only flash-attn has dropout; choose_attention made sure that it is there
        from flash_attn import flash_attn_varlen_func

        out = flash_attn_varlen_func(query, key, value, cu_seqlens, cu_seqlens, longest, longest, dropout_p=dropout)
    else:
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest)
    return out.flatten(1)


def _attend_padded(qkv: Tensor, packing: Packing, backend: str, dropout: float, softmax_kernel: str) -> Tensor:
    _, _, num_heads, head_width = qkv.shape
    num_sequences, longest = packing.num_sequences, packing.max_seqlen
    query, key, value = qkv.view(num_sequences, longest, 3, num_heads, head_width).permute(
        2, 0, 3, 1, 4
    )  # (S, A, L, D)
    if backend == "sdpa":
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=packing.key_mask, dropout_p=dropout)
    else:
        scores = query @ key.transpose(-1, -2)  # (S, A, L, L)
        out = scaled_masked_softmax(scores, packing.key_mask, head_width**-0.5, dropout, softmax_kernel) @ value
    return out.transpose(1, 2).reshape(num_sequences * longest, num_heads * head_width)


def choose_attention(
    wanted: str,
    device: torch.device,
    dtype: torch.dtype,
    dropout: float,
    head_width: int = 64,
    obstacle_to_native: str = "it needs --kernels native, or auto where that is chosen",
) -> tuple[str, str]:
    """The backend to run and the reason, for the line printed at the start; our C++ runs where nothing is in its way.

    Raises:
        ValueError: a backend was asked for by name where it cannot run.
    """
    obstacle = _obstacle_to_varlen(device, dtype, dropout, head_width)
    if wanted == "varlen" and obstacle:
        raise ValueError(f"--attention varlen cannot run: {obstacle}. Use --attention auto")
    if wanted == "blocked" and device.type != "cpu":
        raise ValueError(f"--attention blocked is for CPUs, this is {device.type}. Use --attention auto")
    if wanted == "native" and obstacle_to_native:
        raise ValueError(f"--attention native cannot run: {obstacle_to_native}. Use --attention auto")
    if wanted != "auto":
        return wanted, "asked for"
    if not obstacle_to_native:
        return "native", "packed, scores stay in the cache of a CPU"
    if not obstacle:
        return "varlen", "packed flash attention, no padding"
    if device.type == "cpu":
        return "blocked", "packed, in blocks that fit the cache of a CPU"
    return "sdpa", f"varlen cannot run: {obstacle}"


def _obstacle_to_varlen(device: torch.device, dtype: torch.dtype, dropout: float, head_width: int) -> str:
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs fp16 or bf16, this is {str(dtype).removeprefix('torch.')}"
    if head_width % 8 or head_width > 256:
        return f"flash attention needs heads whose width is a multiple of 8 and at most 256, these have {head_width}"
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
        return "flash attention needs compute capability 8.0 or newer"
    if dropout > 0 and importlib.util.find_spec("flash_attn") is None:
        return f"attention dropout {dropout} needs the flash-attn package (torch's own varlen has none)"
    return ""
