"""Fuzzing with hypothesis: valid files, damaged with a sense for their format; a failure is shrunk.

python -m tests.fuzz.structured --target corpus --inputs 100000 --seed 1
"""

import argparse
import time
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Runner, limited
from tests.fuzz.targets import TARGETS

_AT_ONCE = 2_000  # hypothesis remembers what it has tried: rounds bound its memory


def run_structured(name: str, inputs: int, first_seed: int) -> Runner:
    """Try `inputs` inputs on a target; raises what the target raises, shrunk."""
    runner = Runner(TARGETS[name]())
    seeds = runner.target.seeds
    with limited():
        for data in seeds:
            runner(data)
        assert runner.accepted == len(seeds), f"a seed of {name} is refused: damage to it would test nothing"
        for number in range(-(-inputs // _AT_ONCE)):
            _round(runner, min(_AT_ONCE, inputs - number * _AT_ONCE), first_seed + number)
    return runner


def _round(runner: Runner, inputs: int, number: int) -> None:
    target = runner.target

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(target.seeds), st.randoms(use_true_random=False))
    def damage(data: bytes, random: Random) -> None:
        runner(mutate(random, data, target.num_parts))

    damage()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    runner = run_structured(options.target, options.inputs, options.seed)
    print(f"{options.target}: {runner.describe()}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
