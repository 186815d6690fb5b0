"""ExecuTorch's programs of an export: executorch/model.pte and model_int8.pte, with XNNPACK, for phones."""

from exporting.executorch_program import Program, make_program
from exporting.executorch_runtime import LoadedProgram, require_executorch, runtime_version
from exporting.variant import MissingPackageError, Request, Variant, write_variant

FILES = {"fp32": "executorch/model.pte", "int8": "executorch/model_int8.pte"}


def export_executorch(request: Request) -> list[Variant]:
    """Writes a program for each precision that ExecuTorch has. Errors: MissingPackageError, ValueError, OSError."""
    try:
        require_executorch()
    except ImportError as error:
        raise MissingPackageError(str(error)) from error
    variants = []
    for precision in (name for name in FILES if name in request.precisions):
        program = make_program(request.plain, request.max_length, int8=precision == "int8")
        variants.append(
            write_variant(
                request,
                program.data,
                format="executorch",
                precision=precision,
                file=FILES[precision],
                runtime=runtime_version(),
                load=LoadedProgram,
                remark=_remark(program, precision, request.max_length),
            )
        )
    return variants


def _remark(program: Program, precision: str, max_length: int) -> str:
    bits = "weights, embeddings and the inputs of linear layers in 8 bit; " if precision == "int8" else ""
    return (
        f"{bits}one input of 1 to {max_length} tokens at a time; XNNPACK runs {sum(program.delegated.values())} operations "
        f"in {program.num_delegates} parts, ExecuTorch's portable kernels run {sum(program.portable.values())}: "
        f"{', '.join(sorted(program.portable))}"
    )
