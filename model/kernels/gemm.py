"""Matrix products of 16-bit operands whose results stay in fp32.

A product of 16-bit operands is accumulated in fp32 by every library and then usually rounded back. Where student and
teacher nearly agree, p_student - p_teacher cancels and that rounding is 4 to 23% of the gradient, so it must not happen.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def exact_16_bit_products(*operands: Tensor) -> Iterator[None]:
    """Lets fp32 GEMMs on a CPU multiply in bf16 and accumulate in fp32, if all `operands` hold bf16 values.

    Then it loses nothing, and is 2.3 times as fast as fp32 here. oneDNN decides whether it does; on CPUs without bf16
    instructions the product is simply fp32. No effect on CUDA.
    """
    if any(operand.dtype != torch.bfloat16 for operand in operands):
        yield
        return
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


def as_operand(tensor: Tensor) -> Tensor:
    """The tensor as `mm_fp32` wants it: CPU GEMMs have no mixed result type, so bf16 values travel in fp32 there."""
    return tensor.float() if tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" else tensor


def mm_fp32(a: Tensor, b: Tensor) -> Tensor:
    """a (m, k) @ b (k, n) -> (m, n) in fp32 (float64 for float64 operands)."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b)


def add_mm_fp32(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total (m, n) fp32 += a (m, k) @ b (k, n)."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)  # no second (m, n) is written and read
    else:
        total.addmm_(a, b)
