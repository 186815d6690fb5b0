"""Units of work: what a preparation hands to its processes, and balances by size."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from data.sources.record import BadRecord

Documents = Iterator[str | BadRecord]
Part = tuple[int, Documents | None]


@dataclass(frozen=True, kw_only=True)
class Item(ABC):
    """One unit of work. Picklable, so that spawned processes and MPI ranks can take it."""

    name: str
    """For messages."""
    size: int
    """Bytes as stored, an estimate for what comes from a hub."""
    identity: str
    """Names the content cheaply: path, size, time of change and range. Equal identities mean equal documents, for the same
    SourceOptions; equal parts as well, for the same part_bytes."""

    @abstractmethod
    def parts(self, is_wanted: Callable[[int], bool], on_bytes: Callable[[int], None]) -> Iterator[Part]:
        """(number, documents) of the item's parts, in order; None for the documents of a part that is not wanted.

        Where parts end depends on the input and on part_bytes alone. What is not read of a part's documents when the next
        part is asked for is passed over. `on_bytes` is told how many stored bytes have been read since it was last told;
        they add up to `size`. Errors: ValueError naming the file and how far it could be read.
        """


@dataclass(frozen=True, kw_only=True)
class Piece(ABC):
    """Something that is read as a whole, and reached without reading what lies before it."""

    name: str
    size: int
    identity: str
    input_bytes: int
    """Bytes of input, decompressed; an estimate where it is compressed."""

    @abstractmethod
    def documents(self, on_bytes: Callable[[int], None]) -> Documents:
        """All of its documents; what `on_bytes` is told adds up to `size`."""


@dataclass(frozen=True, kw_only=True)
class Group(Item):
    """Pieces in a row that together are one part."""

    pieces: tuple[Piece, ...]

    def parts(self, is_wanted: Callable[[int], bool], on_bytes: Callable[[int], None]) -> Iterator[Part]:
        if not is_wanted(0):
            on_bytes(self.size)
            yield 0, None
            return
        documents = (document for piece in self.pieces for document in piece.documents(on_bytes))
        yield 0, documents
        pass_over(documents)


def grouped(plan: Sequence[Piece | Item], part_bytes: int) -> list[Item]:
    """Pieces in a row as groups of at most part_bytes of input, or of one piece; items as they are."""
    items: list[Item] = []
    pieces: list[Piece] = []
    size = 0
    for entry in [*plan, None]:
        if pieces and not (isinstance(entry, Piece) and size + entry.input_bytes <= part_bytes):
            items.append(_group(pieces))
            pieces, size = [], 0
        if isinstance(entry, Piece):
            pieces.append(entry)
            size += entry.input_bytes
        elif entry is not None:
            items.append(entry)
    return items


def _group(pieces: list[Piece]) -> Group:
    name, identity = pieces[0].name, pieces[0].identity
    if len(pieces) > 1:
        name = f"{name} and {len(pieces) - 1:,} more"
        identity = hashlib.sha256(
            "\n".join(piece.identity for piece in pieces).encode("utf-8", "surrogatepass")
        ).hexdigest()
    return Group(name=name, size=sum(p.size for p in pieces), identity=identity, pieces=tuple(pieces))


@dataclass
class Meter:
    """Turns positions in something of `size` bytes into the amounts that `on_bytes` is told."""

    size: int
    on_bytes: Callable[[int], None]
    _told: int = field(default=0, init=False)

    def advance_to(self, position: int) -> None:
        """So many bytes of it have been read."""
        if self._told < min(position, self.size):
            self.on_bytes(min(position, self.size) - self._told)
            self._told = min(position, self.size)

    def finish(self) -> None:
        """All of it has been read."""
        self.advance_to(self.size)


def pass_over(documents: Documents) -> None:
    """Read what is left of them."""
    for _ in documents:
        pass
