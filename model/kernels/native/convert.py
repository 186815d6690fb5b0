"""fp32 -> bf16 with a factor, in one pass over memory."""

import ctypes

import torch
from torch import Tensor

from model.kernels.native.library import library


def scale_to_bf16(tensor: Tensor, scale: float) -> Tensor:
    """scale * tensor, rounded to nearest even; contiguous fp32 on the CPU."""
    out = torch.empty_like(tensor, dtype=torch.bfloat16)
    library().scale_to_bf16(
        ctypes.c_void_p(tensor.data_ptr()),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int64(tensor.numel()),
        ctypes.c_float(scale),
    )
    return out
