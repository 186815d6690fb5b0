"""The frozen teacher: evaluation mode, no gradients, half precision; never in the engine, never in a checkpoint."""

import torch
from torch import Tensor

from model.bert import MaskedLanguageModel, Prediction
from model.float8 import use_float8
from model.kernels.vocab_loss import Decoder

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def choose_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The teacher's precision and the reason.

    Raises:
        ValueError: fp16 on a CPU, whose fp16 GEMM was measured 500 times slower than bf16 (1.5 against 776 GFLOP/s); fp8 on
            a GPU that cannot multiply it.
    """
    if wanted == "fp8":
        return _choose_beside_float8(device)
    if wanted == "fp16" and device.type == "cpu":
        raise ValueError("--teacher_dtype fp16 on a CPU is about 500 times slower than bf16: use auto, bf16 or fp32")
    if wanted != "auto":
        return DTYPES[wanted], "asked for"
    if device.type == "cuda":
        return torch.float16, "half precision on CUDA"
    if cpu_multiplies_bf16():
        return torch.bfloat16, "this CPU multiplies bf16 natively"
    return torch.float32, "this CPU has no bf16 instructions"


def cpu_multiplies_bf16() -> bool:
    """With instructions of its own; others compute it in fp32, slowly."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def _choose_beside_float8(device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of everything but the products in 8 bit."""
    if device.type == "cpu":
        return choose_dtype("auto", device)[0], "layers in fp8, asked for; their products take 6 times as long on a CPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 9):
        raise ValueError(
            f"--teacher_dtype fp8 needs compute capability 8.9 or newer, this GPU has {capability[0]}.{capability[1]}: "
            "use auto"
        )
    return torch.bfloat16, "layers in fp8, asked for"


class Teacher:
    """Not an `nn.Module`, so that no engine, optimizer or checkpoint can pick it up as a submodule by accident."""

    def __init__(
        self, model: MaskedLanguageModel, dtype: torch.dtype, device: torch.device, is_float8: bool = False
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        if is_float8:
            use_float8(self.model)
        self.config = model.config

    # no_grad and not inference_mode: the cosine loss keeps the teacher's hidden states for its backward.
    @torch.no_grad()
    def __call__(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        predict_at: Tensor | None = None,
    ) -> Prediction:
        return self.model(token_ids, position_ids, cu_seqlens, max_seqlen, predict_at)

    def decoder(self) -> Decoder:
        return self.model.decoder()
