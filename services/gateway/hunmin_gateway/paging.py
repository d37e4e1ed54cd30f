"""Lists that are read a page at a time, newest first: places in them, and the statement of a page. Knows no table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, literal, tuple_


@dataclass(frozen=True)
class Position:
    """A place in a list: right after the row of that time and id."""

    at: datetime
    id: str


@dataclass(frozen=True)
class Part:
    """Which part of a list to read: at most `limit` rows behind `after`."""

    limit: int
    after: Position | None


def paged(statement: Select[Any], part: Part, *, by: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Return the statement of that part and the row behind it, if any. `by` are the columns of the time and the id."""
    at, row_id = by
    if part.after is not None:
        statement = statement.where(tuple_(at, row_id) < tuple_(literal(part.after.at), literal(part.after.id)))
    return statement.order_by(at.desc(), row_id.desc()).limit(part.limit + 1)
