"""Pages of the Studio dialect: what a list is asked with, and the cursor that continues it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import Query
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.schema import Schema
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter

from hunmin_gateway.paging import Part, Position

MAX_PAGE = 200
_LOST_PLUS = re.compile(r"(T.*) (\d\d:\d\d)$")
ItemT = TypeVar("ItemT")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies before the year 1 or after 9999 in UTC") from None


def _is_a_date(value: object) -> object:
    """Refuse a number, which pydantic takes for seconds since 1970: `2026` is not the year that was meant.

    In a query a plus is a space, so that `T00:00:00+09:00` comes without it: what else could be meant?
    """
    if not isinstance(value, str):
        return value
    if "-" not in value[1:]:
        raise ValueError("is no date with a time and an offset, as in 2026-01-31T00:00:00Z")
    return _LOST_PLUS.sub(r"\1+\2", value)


Moment = Annotated[AwareDatetime, BeforeValidator(_is_a_date), AfterValidator(_in_utc)]
_MOMENT = TypeAdapter[datetime](Moment)


class PageQuery(Schema):
    """Which part of a list to read. `cursor` is the `next_cursor` of the page before."""

    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50
    cursor: str | None = None

    @property
    def part(self) -> Part:
        """The part that is asked for; INVALID_PARAMETER if the cursor is none of ours."""
        return Part(self.limit, None if self.cursor is None else _position(self.cursor))


class SearchQuery(PageQuery):
    """The same, of what has `q` in its name, in capitals or not."""

    q: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None


def split(rows: Sequence[ItemT], query: PageQuery, *, at: str = "created_at") -> tuple[list[ItemT], str | None]:
    """Return the page, and the cursor of the next one if there is a row behind it. `at` is what holds its time."""
    page = list(rows[: query.limit])
    if len(rows) <= query.limit:
        return page, None
    last = page[-1]
    moment = getattr(last, at).isoformat().replace("+00:00", "Z")  # as it is in a URL, where a plus is a space
    return page, f"{moment}_{getattr(last, 'id')}"  # noqa: B009  # of any kind of row


def _position(cursor: str) -> Position:
    at, _, row_id = cursor.partition("_")
    try:
        if "\x00" in row_id:  # of which PostgreSQL has none
            raise ValueError("no id")
        return Position(_MOMENT.validate_python(at), row_id)
    except ValueError:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "Parameter cursor: not a cursor of this list. Send next_cursor of the page before, as it came.",
            param="cursor",
        ) from None
