"""Which sequences are measured, and which importance is taken from."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pruning.text_yardstick import spread_ids, spread_others


@example(count=8665, measured=48, wanted=24)  # a shift by half a step met the measured ones again
@example(count=10, measured=10, wanted=5)
@given(count=st.integers(1, 400), measured=st.integers(0, 450), wanted=st.integers(0, 450))
def test_no_sequence_is_both(count: int, measured: int, wanted: int) -> None:
    ids = spread_ids(count, measured)
    others = spread_others(ids, count, wanted)
    rest = np.setdiff1d(np.arange(count), ids)  # the plain way, which lists them all
    assert others.tolist() == rest[spread_ids(len(rest), wanted)].tolist()
    assert len(others) == min(wanted or len(rest), len(rest))
    assert np.all(np.diff(ids) > 0)
