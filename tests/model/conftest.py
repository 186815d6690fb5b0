"""The Triton kernels run on a CUDA device, or in Triton's interpreter, which must be chosen before Triton is imported:
without a device their tests are left out here and run by test_triton.py in a process of their own."""

import os

import torch

IS_INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))

collect_ignore_glob = [] if torch.cuda.is_available() or IS_INTERPRETED else ["test_triton_*.py"]


def mend_the_interpreter() -> None:
    """Triton 3.6 cuts bf16 off where devices round it, and counts loops in a way that numpy has refused since 2.4."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    convert, patch_tensor = interpreter._convert_float, interpreter._patch_lang_tensor

    def convert_rounding(values: np.ndarray, from_type: tl.dtype, to_type: tl.dtype, mode: object) -> np.ndarray:
        if (from_type, to_type) == (tl.float32, tl.bfloat16):
            return torch.from_numpy(np.ascontiguousarray(values)).bfloat16().view(torch.uint16).numpy()
        return convert(values, from_type, to_type, mode)

    def patch_counting(tensor: type, scope: interpreter._LangPatchScope) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._convert_float, interpreter._patch_lang_tensor = convert_rounding, patch_counting


if IS_INTERPRETED:
    mend_the_interpreter()
