"""Fuzzing guided by coverage, with atheris (libFuzzer): inputs that reach new lines of ours are kept and damaged further.

    python -m tests.fuzz.coverage --target corpus --inputs 1000000 --seed 1

Half of the damage is libFuzzer's own, half has a sense for the formats (mutate.py). A failure leaves its input in --keep.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["data", "training"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Runner, limited

_LONGEST_INPUT = 1 << 16


def fuzz(name: str, inputs: int, seed: int, keep: Path) -> None:
    """Try inputs until there have been `inputs` of them; does not return, because libFuzzer exits."""
    runner = Runner(TARGETS[name]())
    started = time.perf_counter()

    def run_one(data: bytes) -> None:
        try:
            runner(data)
        except BaseException:
            print(f"{name}: failed after {runner.describe()}", file=sys.stderr)
            raise
        if runner.inputs == inputs:
            print(f"{name}: {runner.describe()}, {time.perf_counter() - started:.0f} s", flush=True)

    def damage(data: bytes, max_size: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, len(data) + 16))[:max_size]
        return mutate(Random(number), data, runner.target.num_parts)[:max_size]

    with tempfile.TemporaryDirectory() as seeds, limited():
        for number, content in enumerate(runner.target.seeds):
            (Path(seeds) / f"{number}").write_bytes(content)
        options = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={_LONGEST_INPUT}", f"-artifact_prefix={keep}/{name}-"]
        atheris.Setup([sys.argv[0], *options, "-verbosity=0", seeds], run_one, custom_mutator=damage)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    fuzz(options.target, options.inputs, options.seed, options.keep)


if __name__ == "__main__":
    main()
