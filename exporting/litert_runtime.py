"""Runs one of LiteRT's programs (.tflite) in Python, as a phone would. Needs ai-edge-litert and numpy.

A program has a signature for each length in tokens that it was written for, `length_64`, and takes one input at a time,
padded to the next of them. Shapes: B inputs, L tokens.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from exporting.executorch_runtime import quiet

INSTALL = "pip install --no-deps -r requirements-litert.txt (Python 3.11 or newer; Linux on x86_64, macOS)"
SIGNATURE = "length_"
OUTPUTS = ("logits", "start_logits", "end_logits")
"""In this order, those that a program has."""


def runtime_version() -> str:
    """For people: "LiteRT 2.3.0"."""
    return f"LiteRT {version('ai-edge-litert')}"


class LoadedProgram:
    """A program as a function: names -> (B, L) int64, padded on the right; to its outputs, fp32.

    threads: 0 for LiteRT's own choice.
    Errors: ImportError, FileNotFoundError, ValueError where the file is no such program.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not file.is_file():
            raise FileNotFoundError(f"no program at '{file}'")
        self.file = file
        with quiet():
            try:
                self.interpreter = Interpreter(str(file), num_threads=threads or None)
                self.interpreter.allocate_tensors()  # takes XNNPACK, and says so
            except ValueError as error:
                raise ValueError(f"{file}: not a program that LiteRT can load ({str(error).strip()})") from error
        signatures = self.interpreter.get_signature_list()
        self.lengths = sorted(int(name.removeprefix(SIGNATURE)) for name in signatures)
        self.names = tuple(signatures[f"{SIGNATURE}{self.lengths[0]}"]["inputs"])

    def __call__(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        num_inputs, length = batch["input_ids"].shape
        if not 1 <= length <= self.lengths[-1]:
            raise ValueError(f"{self.file.name} takes 1 to {self.lengths[-1]} tokens, not {length}: cut the input")
        padded = next(each for each in self.lengths if each >= length)
        columns = {name: np.pad(batch[name].astype(np.int32), ((0, 0), (0, padded - length))) for name in self.names}
        run = self.interpreter.get_signature_runner(f"{SIGNATURE}{padded}")
        rows = [run(**{name: column[i : i + 1] for name, column in columns.items()}) for i in range(num_inputs)]
        names = [name for name in OUTPUTS if name in rows[0]]
        return tuple(_without_padding(np.concatenate([row[name] for row in rows]), name, length) for name in names)


def _without_padding(output: np.ndarray, name: str, length: int) -> np.ndarray:
    of_each_token = output.ndim == 3 or name != "logits"  # classes are logits of an input
    return output[:, :length] if of_each_token else output
