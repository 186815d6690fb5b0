"""Runs one of ExecuTorch's programs (.pte) in Python, as a phone would. Needs executorch, torch and numpy, nothing of ours.

A program takes one input at a time, of 1 token to as many as it was exported for. Shapes: B inputs, L tokens.
"""

import contextlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = "pip install executorch==1.5.1"
"""Each release of ExecuTorch is for one of torch; 1.5 is for torch 2.13."""
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
"""A program of two inputs has the first two."""


class ThreadPool:
    """ExecuTorch's only pool of threads. A method keeps a pointer to the pool it was loaded under."""

    def __init__(self, bindings: Any) -> None:
        self.bindings = bindings
        self.default: int = bindings._threadpool_get_thread_count()
        self.size = self.default
        self.made = 0
        """How often it was made anew. What was loaded under an older one must not run again: it would crash."""

    def resize(self, threads: int) -> None:
        """threads: 0 for ExecuTorch's own choice."""
        wanted = threads or self.default
        if wanted != self.size:
            with quiet():
                self.bindings._unsafe_reset_threadpool(wanted)
            self.size = wanted
            self.made += 1


@cache
def require_executorch() -> ThreadPool:
    """Imports it, in seconds and without a word. Errors: ImportError naming what to install."""
    if importlib.util.find_spec("executorch") is None:
        raise ImportError(f"executorch is not installed: {INSTALL}")
    with quiet():
        try:
            import executorch.extension.pybindings.portable_lib as bindings
        except ImportError as error:
            raise ImportError(f"executorch cannot be loaded ({error}). For torch 2.13: {INSTALL}") from error
        return ThreadPool(bindings)


def runtime_version() -> str:
    """For people: "executorch 1.5.1"."""
    return f"executorch {version('executorch')}"


class LoadedProgram:
    """A program as a function: names -> (B, L) int64, padded on the right; to its outputs, fp32.

    threads: 0 for ExecuTorch's own choice.
    Errors: ImportError naming what to install, FileNotFoundError, ValueError where the file is no such program.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        self.pool = require_executorch()
        if not file.is_file():
            raise FileNotFoundError(f"no program at '{file}'")
        self.file, self.threads = file, threads
        self.loaded_under = -1
        self.load()

    def load(self) -> None:
        """Again wherever another program, loaded for other threads, took the pool away."""
        self.pool.resize(self.threads)
        if self.loaded_under == self.pool.made:
            return
        with quiet():
            from executorch.runtime import Runtime

            try:
                self.program = Runtime.get().load_program(self.file)
                method = self.program.load_method("forward")
            except RuntimeError as error:
                raise ValueError(f"{self.file}: not a program that this ExecuTorch can load ({error})") from error
        assert method is not None, "a method that cannot be loaded is an error"
        self.method, self.loaded_under = method, self.pool.made
        self.names = INPUT_NAMES[: method.metadata.num_inputs()]
        self.max_length: int = method.metadata.input_tensor_meta(0).sizes()[1]

    def __call__(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        import torch

        num_inputs, length = batch[self.names[0]].shape
        if not 1 <= length <= self.max_length:
            raise ValueError(f"{self.file.name} takes 1 to {self.max_length} tokens, not {length}: cut the input")
        self.load()
        inputs = [torch.from_numpy(np.ascontiguousarray(batch[name], dtype=np.int64)) for name in self.names]
        rows = [self.method.execute([each[i : i + 1] for each in inputs]) for i in range(num_inputs)]
        return tuple(torch.cat(list(values)).numpy() for values in zip(*rows, strict=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What ExecuTorch and torchao print while they are imported and work goes nowhere. Errors pass."""
    handlers = list(logging.getLogger().handlers)
    sys.stderr.flush()
    kept = os.dup(2)  # C++ writes to the descriptor, so Python's own redirection would not catch it
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        for handler in set(logging.getLogger().handlers) - set(handlers):
            logging.getLogger().removeHandler(handler)  # ExecuTorch's partitioner configures everybody's logging
