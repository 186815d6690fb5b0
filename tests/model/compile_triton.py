"""Every Triton kernel through the real compiler, down to machine code for compute capability 9.0; needs no device.

    python -m tests.model.compile_triton

The operations are called with tensors on the CPU, and each launch is compiled instead of run. Prints registers and spills.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, KernelParam

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64", torch.bool: "i1"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
REGISTERS_OF_A_MULTIPROCESSOR = 65536


def type_of(value: object) -> str:
    if isinstance(value, Tensor):
        return "*" + TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def is_aligned(value: object) -> bool:
    """What a launch assumes of its arguments: torch's allocations are aligned, other pointers and integers may be."""
    return value.data_ptr() % 16 == 0 if isinstance(value, Tensor) else isinstance(value, int) and value % 16 == 0


def is_one(value: object, parameter: KernelParam) -> bool:
    """A launch makes a constant of an integer that is 1."""
    return type(value) is int and value == 1 and not parameter.do_not_specialize


def compile_instead(function: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """What stands in for a launch."""
    options = {name: kwargs.pop(name) for name in ("num_warps", "num_stages") if name in kwargs}
    values = dict(zip(function.arg_names, args, strict=False)) | kwargs
    assert set(values) == set(function.arg_names), (function, set(function.arg_names) ^ set(values))
    constants = {p.name: values[p.name] for p in function.params if p.is_constexpr or is_one(values[p.name], p)}
    signature = {name: "constexpr" if name in constants else type_of(values[name]) for name in function.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(function.arg_names)
        if name not in constants and is_aligned(values[name])
    }
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=TARGET, options=options)
    usage = resources(compiled.asm["cubin"])
    print(f"{function.fn.__module__}.{function.fn.__name__} {constants} {options}: {usage}")
    threads = 32 * compiled.metadata.num_warps
    assert usage["REG"] * threads <= REGISTERS_OF_A_MULTIPROCESSOR
    assert usage["LOCAL"] == 0, "registers spill"


def resources(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        output = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True)
    fields = output.stdout.split("Function ")[1].split(":", 1)[1].split()
    return {name: int(value) for name, _, value in (field.partition(":") for field in fields) if "[" not in name}


def layer_norm() -> None:
    from model.kernels.triton_kernels.layer_norm import layer_norm

    for rows, width, dtype, probability in (
        (64, 768, torch.bfloat16, 0.1),
        (64, 768, torch.float16, 0.0),
        (1, 100, torch.float32, 0.1),
    ):
        hidden, residual = (torch.zeros(rows, width, dtype=dtype, requires_grad=True) for _ in range(2))
        weight, bias = (torch.zeros(width, dtype=dtype, requires_grad=True) for _ in range(2))
        layer_norm(hidden, residual, weight, bias, 1e-12, probability).sum().backward()


def vocab_loss() -> None:
    from model.kernels.triton_kernels.vocab_loss import logits_to_gradient

    scales: dict[str, Any] = {"vocab_size": 30522, "kl_scale": 5.0, "nll_scale": 3.0}
    labels = torch.zeros(1, dtype=torch.int64)
    for dtype, temperature, has_teacher in (
        (torch.bfloat16, 2.0, True),
        (torch.float16, 3.7, True),
        (torch.float32, 1.0, False),
    ):
        logits, teacher = torch.zeros(2, 2, 30528)
        biases = torch.zeros(2, 30528, dtype=dtype)
        teachers = (teacher, biases[1]) if has_teacher else (None, None)
        logits_to_gradient(logits, biases[0], *teachers, labels, temperature=temperature, dtype=dtype, **scales)


def activation() -> None:
    from model.kernels.triton_kernels.activation import bias_gelu

    for rows, width, dtype in ((64, 3072, torch.bfloat16), (1, 100, torch.float32)):
        inner, bias = torch.zeros(rows, width, dtype=dtype), torch.zeros(width, dtype=dtype)
        bias_gelu(inner.requires_grad_(), bias.requires_grad_()).sum().backward()


def softmax() -> None:
    from model.kernels.triton_kernels.softmax import scaled_masked_softmax

    for length, dtype, probability in (
        (512, torch.bfloat16, 0.1),
        (100, torch.float16, 0.0),
        (99, torch.float32, 0.1),
        (4096, torch.bfloat16, 0.1),
    ):
        scores = torch.zeros(1, 1, 2, length, dtype=dtype, requires_grad=True)
        key_mask = torch.ones(1, 1, 1, length, dtype=torch.bool)
        scaled_masked_softmax(scores, key_mask, 0.125, probability).sum().backward()


if __name__ == "__main__":
    JITFunction.run = compile_instead
    for operation in (layer_norm, activation, softmax, vocab_loss):
        operation()
