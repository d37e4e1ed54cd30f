"""A list that is too long for one answer, as the public API hands it out. It does not know what is listed."""

from typing import Generic, TypeVar

from hunmin_contracts.schema import Schema

ItemT = TypeVar("ItemT")


class Page(Schema, Generic[ItemT]):
    """A part of a list. `next_cursor` continues it, and is null at its end."""

    data: list[ItemT]
    next_cursor: str | None
