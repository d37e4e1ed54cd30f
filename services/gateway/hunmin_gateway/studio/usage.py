"""The caller's own usage: its rows page by page, their sums, and all of them as a table."""

import csv
import io
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.usage import UsagePage, UsageRow, UsageSum, UsageSummary
from hunmin_kit.data import SessionDep
from pydantic import Field
from starlette.responses import StreamingResponse

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.paging import Part, Position
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.paging import Moment, PageQuery, split
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tables import Usage
from hunmin_gateway.tenancy.projects import narrowed
from hunmin_gateway.tenancy.reach import Reach
from hunmin_gateway.usage.ledger import usage_page
from hunmin_gateway.usage.summary import Grouping, usage_sums

router = studio_router()

MAX_GROUPS = 10_000  # of a summary: what is still one answer
DEFAULT_DAYS = 30  # of a summary
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # no row is older, and there are days before it
_TABLE_PAGE = 1000  # rows that are read at a time
_COLUMNS = tuple(UsageRow.model_fields)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet computes (OWASP)


class UsageQuery(PageQuery):
    """Which rows of usage to list. Times have an offset, as in `2026-01-31T00:00:00Z`."""

    project: str | None = None
    since: Moment | None = None
    until: Moment | None = None


@router.get("/usage", summary="List your usage", dependencies=[requires(Scope.READ)])
async def usage(query: Annotated[UsageQuery, Query()], principal: PrincipalDep, session: SessionDep) -> UsagePage:
    """List what the requests of your account used, newest first, started in `[since, until)`."""
    reach = await narrowed(session, Reach.by(principal), query.project)
    rows, next_cursor = split(
        await usage_page(session, reach, query.part, since=query.since, until=query.until), query, at="started_at"
    )
    return UsagePage(data=[UsageRow.model_validate(row, from_attributes=True) for row in rows], next_cursor=next_cursor)


class SummaryQuery(Schema):
    """Which rows of usage to add up, and by what. Times have an offset; without `since` the last 30 days are taken."""

    by: Annotated[list[Grouping], Field(min_length=1, max_length=4), Query()] = ["day", "key", "model"]
    project: str | None = None
    since: Moment | None = None
    until: Moment | None = None


@router.get("/usage/summary", summary="Add up your usage", dependencies=[requires(Scope.READ)])
async def summary(
    query: Annotated[SummaryQuery, Query()], principal: PrincipalDep, session: SessionDep
) -> UsageSummary:
    """Add up what your account's requests used, started in `[since, until)`, by UTC day, project, key and model."""
    until = query.until or datetime.now(UTC)
    since = query.since or max(until, _EPOCH) - timedelta(days=DEFAULT_DAYS)
    rows = await usage_sums(
        session,
        await narrowed(session, Reach.by(principal), query.project),
        by=frozenset(query.by),
        since=since,
        until=until,
        limit=MAX_GROUPS + 1,
    )
    if len(rows) > MAX_GROUPS:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"Parameter since: the summary would have more than {MAX_GROUPS:,} groups. Ask for a shorter time, or "
            "group by less.",
            param="since",
        )
    return UsageSummary(since=since, until=until, data=[UsageSum(**row) for row in rows])


class TableQuery(Schema):
    """Which rows of usage to export. Times have an offset, as in `2026-01-31T00:00:00Z`."""

    project: str | None = None
    since: Moment | None = None
    until: Moment | None = None


@router.get(
    "/usage.csv", response_class=StreamingResponse, summary="Export your usage", dependencies=[requires(Scope.READ)]
)
async def table(query: Annotated[TableQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> StreamingResponse:
    """Export what the requests of your account used, newest first, as comma-separated values with a row of names."""
    # The first page is read before the status is sent, so that a database that is away is an error.
    pages = _pages(query, principal, parts)
    first = await anext(pages)
    disposition = {"Content-Disposition": 'attachment; filename="usage.csv"'}
    return StreamingResponse(_table(first, pages), media_type="text/csv; charset=utf-8", headers=disposition)


async def _pages(query: TableQuery, principal: Principal, parts: Parts) -> AsyncGenerator[list[Usage], None]:
    """Yield the rows page by page, one page at least. No session is held between two."""
    async with parts.database.session() as session:
        reach = await narrowed(session, Reach.by(principal), query.project)
    after: Position | None = None
    is_last = False
    while not is_last:
        async with parts.database.session() as session:
            found = await usage_page(session, reach, Part(_TABLE_PAGE, after), since=query.since, until=query.until)
        rows = found[:_TABLE_PAGE]
        is_last = len(found) <= _TABLE_PAGE
        if rows:
            after = Position(rows[-1].started_at, rows[-1].id)
        yield rows


async def _table(first: list[Usage], pages: AsyncGenerator[list[Usage], None]) -> AsyncGenerator[str, None]:
    yield _lines([_COLUMNS])
    yield _lines(map(_cells, first))
    async for rows in pages:
        yield _lines(map(_cells, rows))


def _cells(row: Usage) -> Iterable[Any]:
    cells = UsageRow.model_validate(row, from_attributes=True).model_dump(mode="json")
    return [_inert(cells[name]) for name in _COLUMNS]


def _inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: a caller may have called for a model of any name."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
