"""Dealing the input: everything once, loads alike, streams shared only where that helps."""

from hypothesis import given
from hypothesis import strategies as st

from data.shares import deal

ITEMS = st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), max_size=40)


@given(ITEMS, st.integers(1, 17))
def test_every_part_of_every_item_has_one_owner(items: list[tuple[int, bool]], num_members: int) -> None:
    sizes, is_stream = [size for size, _ in items], [is_stream for _, is_stream in items]
    shares = deal(sizes, is_stream, num_members)
    assert len(shares) == num_members
    turns = {}
    for member, dealt in enumerate(shares):
        for share in dealt:
            assert member in share.turn
            assert turns.setdefault(share.item, share.turn) == share.turn
    assert sorted(turns) == list(range(len(items)))
    for item, turn in turns.items():
        assert set(turn) == {m for m, dealt in enumerate(shares) if item in [share.item for share in dealt]}
        assert is_stream[item] or len(set(turn)) == 1


def loads(sizes: list[int], is_stream: bool, num_members: int) -> list[float]:
    shares = deal(sizes, [is_stream] * len(sizes), num_members)
    return [
        sum(sizes[share.item] * share.turn.count(member) / len(share.turn) for share in dealt)
        for member, dealt in enumerate(shares)
    ]


def test_loads_are_alike() -> None:
    assert loads([100] * 4, True, 2) == [200, 200]
    assert loads([100] * 3, True, 2) == [150, 150]
    assert max(loads([90, 10, 100, 33, 167], True, 2)) <= 1.06 * 200
    assert max(loads([1000], True, 7)) <= 1.1 * 1000 / 7
    assert max(loads([10] * 1000, False, 64)) <= 10 * (1000 // 64 + 2)


def test_a_stream_is_not_shared_for_little() -> None:
    """101 and 99: nobody decompresses the first to its end for the sake of a hundredth of it."""
    assert [[share.item for share in dealt] for dealt in deal([101, 99], [True, True], 2)] == [[0], [1]]
