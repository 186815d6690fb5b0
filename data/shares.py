"""Who encodes what: items of input dealt to the members of a crew, by size.

The members' loads are intervals of equal length on the line of all bytes, in the order of the input, so that a member reads
few items from their start. The result of a preparation does not depend on any of this: parts are merged by their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_LEAST = 0.05  # of a member's load: for less than this nobody decompresses a stream to its end


@dataclass(frozen=True)
class Share:
    """An item that a member works on, alone or with others."""

    item: int
    turn: tuple[int, ...]
    """Whose part is the k-th: member turn[k % len(turn)]."""


def deal(sizes: Sequence[int], is_stream: Sequence[bool], num_members: int) -> list[list[Share]]:
    """Each member's shares: every item is dealt once, streams (of several parts) perhaps to several members.

    sizes: of the items, in bytes.
    """
    load = max(1, sum(sizes)) / num_members
    shares: list[list[Share]] = [[] for _ in range(num_members)]
    start = 0.0
    for item, (size, is_shared) in enumerate(zip(sizes, is_stream, strict=True)):
        end = start + size
        if is_shared:
            members = _overlapping(start, end, load, num_members)
        else:
            members = [min(num_members - 1, int((start + end) / 2 / load))]
        turn = _turns(members, start, end, load)
        for member in sorted(set(turn)):
            shares[member].append(Share(item, turn))
        start = end
    return shares


def _overlapping(start: float, end: float, load: float, num_members: int) -> list[int]:
    """The members whose intervals the item overlaps by more than a little."""
    first, last = int(start / load), min(num_members - 1, int(end / load))
    within = [
        member for member in range(min(first, last), last + 1) if _overlap(member, start, end, load) > _LEAST * load
    ]
    return within or [min(num_members - 1, int((start + end) / 2 / load))]


def _overlap(member: int, start: float, end: float, load: float) -> float:
    return min(end, (member + 1) * load) - max(start, member * load)


def _turns(members: list[int], start: float, end: float, load: float) -> tuple[int, ...]:
    """Parts in proportion to the overlaps: each goes to the member that is furthest behind."""
    if len(members) == 1:
        return (members[0],)
    overlaps = [max(_overlap(member, start, end, load), 0.0) for member in members]
    smallest, total = min(overlaps), sum(overlaps)
    length = min(20 * len(members), round(total / smallest))
    given = [0] * len(members)
    turn = []
    for part in range(1, length + 1):
        behind = [part * overlap / total - number for overlap, number in zip(overlaps, given, strict=True)]
        next_one = behind.index(max(behind))
        given[next_one] += 1
        turn.append(members[next_one])
    return tuple(turn)
