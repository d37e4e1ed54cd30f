"""What both kinds of completion do with their pieces: put them in order."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Indexed(Protocol):
    """A piece of the choice with that index."""

    index: int


IndexedT = TypeVar("IndexedT", bound=Indexed)


def by_index(pieces: Iterable[IndexedT]) -> list[tuple[int, list[IndexedT]]]:
    """Group the pieces by choice, choices by index, pieces as they came."""
    groups: dict[int, list[IndexedT]] = {}
    for piece in pieces:
        groups.setdefault(piece.index, []).append(piece)
    return sorted(groups.items())
