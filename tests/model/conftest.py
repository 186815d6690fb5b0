"""The Triton kernels run on a CUDA device, or in Triton's interpreter, which must be chosen before Triton is imported:
without a device their tests are left out here and run by test_triton.py in a process of their own."""

import os

import torch

IS_INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))

collect_ignore_glob = [] if torch.cuda.is_available() or IS_INTERPRETED else ["test_triton_*.py"]


def let_the_interpreter_count() -> None:
    """Triton 3.6 turns arrays of one element into loop bounds in a way that numpy has refused since 2.4."""
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch(tensor: type, scope: interpreter._LangPatchScope) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


if IS_INTERPRETED:
    let_the_interpreter_count()
