"""Lists that the services hand out in pages, read whole: for dialects that have other pages, or none."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar


class _Item(Protocol):
    @property
    def id(self) -> str: ...


ItemT = TypeVar("ItemT", bound=_Item)


class _Page(Protocol[ItemT]):
    @property
    def data(self) -> list[ItemT]: ...

    @property
    def has_more(self) -> bool: ...


async def read_all(read: Callable[[Any], Awaitable[_Page[ItemT]]]) -> list[ItemT]:
    """Return what `read` lists; it is given the id that the page before ended with, None for the first."""
    found: list[ItemT] = []
    has_more = True
    while has_more:
        page = await read(found[-1].id if found else None)
        found += page.data
        has_more = page.has_more
    return found
