"""LiteRT's programs of an export: litert/model.tflite and model_int8.tflite, with XNNPACK, for phones.

LiteRT's converter takes fixed lengths only: a program has a signature for each of `lengths`, all with the same weights
but for the embeddings of positions, of which each has its own, in fp32.
int8: weights of linear layers by output channel and their inputs as they come, by LiteRT's own quantizer; words by row.
"""

import contextlib
import io

import torch
from torch import Tensor, nn

from exporting.executorch_runtime import quiet
from exporting.litert_runtime import INSTALL, SIGNATURE, LoadedProgram, runtime_version
from exporting.plain import PlainModel
from exporting.single_input import SingleInput
from exporting.variant import MissingPackageError, Request, Variant, write_variant

FILES = {"fp32": "litert/model.tflite", "int8": "litert/model_int8.tflite"}
SHORTEST = 32
"""Tokens that an input is at least padded to: every signature costs a phone the packed weights once more."""


def export_litert(request: Request) -> list[Variant]:
    """Writes a program for each precision that LiteRT has. Errors: MissingPackageError, OSError."""
    wanted = [precision for precision in FILES if precision in request.precisions]
    if not wanted:
        return []
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            programs = {"fp32": make_program(request.plain, request.max_length)}
            if "int8" in wanted:
                programs["int8"] = quantize(programs["fp32"])
    except ImportError as error:
        raise MissingPackageError(f"LiteRT cannot be loaded ({error}): {INSTALL}") from error
    return [
        write_variant(
            request,
            programs[precision],
            format="litert",
            precision=precision,
            file=FILES[precision],
            runtime=runtime_version(),
            load=LoadedProgram,
            remark=_remark(precision, request.max_length),
        )
        for precision in wanted
    ]


def make_program(plain: PlainModel, max_length: int) -> bytes:
    """The .tflite, fp32; takes half a minute and more."""
    import litert_torch

    model = _Named(plain).eval()
    first, *others = lengths(max_length)
    converter = litert_torch.signature(f"{SIGNATURE}{first}", model, sample_kwargs=_example(plain, first))
    for length in others:
        converter.signature(f"{SIGNATURE}{length}", model, sample_kwargs=_example(plain, length))
    return converter.convert().model_content()


def quantize(program: bytes) -> bytes:
    """fp32 -> 8 bit."""
    from ai_edge_quantizer import quantizer, recipe

    return bytes(quantizer.Quantizer(bytearray(program), recipe.dynamic_wi8_afp32()).quantize().quantized_model)


def lengths(max_length: int) -> list[int]:
    """Doubled from `SHORTEST`, and the longest."""
    doubled = [SHORTEST << times for times in range(max_length.bit_length()) if SHORTEST << times < max_length]
    return [*doubled, max_length]


class _Named(nn.Module):
    """Outputs by name, which are then the program's."""

    def __init__(self, plain: PlainModel) -> None:
        super().__init__()
        self.single, self.output_names = SingleInput(plain), plain.output_names

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        outputs = self.single(input_ids, attention_mask, token_type_ids)
        return dict(zip(self.output_names, outputs, strict=True))


def _example(plain: PlainModel, length: int) -> dict[str, Tensor]:
    return {name: torch.ones(1, length, dtype=torch.int32) for name in plain.input_names}


def _remark(precision: str, max_length: int) -> str:
    bits = "weights, words and the inputs of linear layers in 8 bit, positions in fp32; " if precision == "int8" else ""
    return f"{bits}one input at a time, padded to {', '.join(map(str, lengths(max_length)))} tokens; XNNPACK"
