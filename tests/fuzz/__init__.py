"""Everything that is read from disk against arbitrary and mutated bytes. See COUNTS.md.

    python -m tests.fuzz.structured --target corpus --inputs 100000
    python -m tests.fuzz.coverage --target corpus --inputs 1000000

A target is a function of bytes, with seeds to start from, in `tests.fuzz.targets.TARGETS`; both engines run all of them.
"""
