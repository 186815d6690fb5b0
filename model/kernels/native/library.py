"""Our C++ kernels: compiled once for this compiler and these sources, loaded through a plain C interface.

No build system and no torch headers: one call of the compiler, about two seconds. They share torch's OpenMP runtime, which
is loaded before them, and so its threads.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

SOURCES = Path(__file__).parent
FLAGS = (
    *("-O3", "-std=c++20", "-fopenmp", "-fPIC", "-shared", "-w"),  # -w: gcc 12 warns about its own intrinsics' headers
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma"),
)


def obstacle() -> str:
    """Why the native kernels cannot run here; empty where they can."""
    if not torch.cpu._is_avx512_bf16_supported():
        return "this CPU has no AVX512-BF16 instructions"
    if compiler() is None:
        return "there is no C++ compiler (install g++, or set CXX)"
    try:
        library()
    except subprocess.CalledProcessError as error:
        lines = error.stderr.splitlines() or [str(error)]
        return f"{compiler()} did not compile them: {next((line for line in lines if 'error' in line), lines[0])}"
    except (OSError, RuntimeError) as error:
        return f"they cannot be built or loaded ({error}; DISTILLERY_CACHE names another folder)"
    return ""


def call(name: str, arguments: type[ctypes.Structure], tensors: Sequence[Tensor | None], *values: float) -> None:
    """Run a kernel on a structure of pointers, which the `tensors` fill from the first on, and `values` behind them.

    Raises:
        MemoryError: its workspace does not fit.
    """
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    pointers += [None] * (len(arguments._fields_) - len(values) - len(pointers))
    if getattr(library(), name)(ctypes.byref(arguments(*pointers, *values))) != 0:
        raise MemoryError(f"no memory for the workspace of {name}, whose sizes are {', '.join(map(str, values))}")


def check_operands(*tensors: Tensor | None) -> None:
    """The kernels see bare memory: what is not bf16 on the CPU, one element after the other, they would misread.

    Raises:
        TypeError: another dtype or device.
    """
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype != torch.bfloat16 or tensor.device.type != "cpu":
            raise TypeError(f"native kernels need bf16 on the CPU, this is {tensor.dtype} on {tensor.device}")
        assert tensor.is_contiguous()


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded kernels, built first if nobody did: in $DISTILLERY_CACHE, or ~/.cache/distillery.

    Raises:
        OSError: no compiler, or nowhere to write.
        subprocess.CalledProcessError: it does not compile.
    """
    sources = sorted(SOURCES.glob("*.cpp"))
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for file in (*sources, *sorted(SOURCES.glob("*.h"))):
        digest.update(file.read_bytes())
    compiled_by = compiler()
    if compiled_by is None:
        raise OSError("no C++ compiler: install g++, or set CXX")
    version = subprocess.run([compiled_by, "--version"], capture_output=True, text=True, check=True).stdout
    digest.update(version.encode())
    cache = Path(os.environ.get("DISTILLERY_CACHE") or Path.home() / ".cache" / "distillery")
    target = cache / f"kernels-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Ranks that start together each build their own and rename it: whoever is last replaces an equal file.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            built = Path(folder) / target.name
            command = [compiled_by, *FLAGS, *map(str, sources), "-o", str(built)]
            subprocess.run(command, capture_output=True, text=True, check=True)
            built.replace(target)
    return ctypes.CDLL(str(target))
