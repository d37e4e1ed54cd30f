"""The caller's own usage: its rows page by page, their sums, and all of them as a table."""

import csv
import io
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import ProjectId
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.usage import UsagePage, UsageRow, UsageSum, UsageSummary
from hunmin_kit.data import SessionDep
from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter
from starlette.responses import StreamingResponse

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tables import Usage
from hunmin_gateway.usage.ledger import Position, usage_page
from hunmin_gateway.usage.summary import Grouping, usage_sums

router = studio_router()

MAX_PAGE = 200
MAX_GROUPS = 10_000  # of a summary: what is still one answer
DEFAULT_DAYS = 30  # of a summary
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # no row is older, and there are days before it
_TABLE_PAGE = 1000  # rows that are read at a time
_COLUMNS = tuple(UsageRow.model_fields)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies before the year 1 or after 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_MOMENT = TypeAdapter[datetime](Moment)


class UsageQuery(Schema):
    """Which rows of usage to list. Times have an offset, as in `2026-01-31T00:00:00Z`."""

    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50
    cursor: str | None = None
    project: str | None = None
    since: Moment | None = None
    until: Moment | None = None


@router.get("/usage", summary="List your usage", dependencies=[requires(Scope.READ)])
async def usage(query: Annotated[UsageQuery, Query()], principal: PrincipalDep, session: SessionDep) -> UsagePage:
    """List what the requests of your account used, newest first, started in `[since, until)`."""
    rows = await usage_page(
        session,
        principal.account_id,
        project_id=visible(query.project, principal),
        limit=query.limit + 1,
        after=None if query.cursor is None else _position(query.cursor),
        since=query.since,
        until=query.until,
    )
    page = rows[: query.limit]
    has_more = len(rows) > query.limit
    rows_shown = [UsageRow.model_validate(row, from_attributes=True) for row in page]
    return UsagePage(data=rows_shown, next_cursor=_cursor(page[-1]) if has_more else None)


def visible(project: str | None, principal: Principal) -> ProjectId | None:
    """Return the project that a list is of, None for the whole account; a foreign one is NOT_FOUND."""
    own = principal.visible_project_id
    if project is None or project == own:
        return own
    if own is not None:
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no project {project}.", param="project")
    return ProjectId(project)  # within the account: what is not there has no rows


def _cursor(row: Usage) -> str:
    return f"{row.started_at.isoformat()}_{row.id}"


def _position(cursor: str) -> Position:
    started_at, _, row_id = cursor.partition("_")
    try:
        return Position(_MOMENT.validate_python(started_at), row_id)
    except ValueError:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "Parameter cursor: not a cursor of this list. Send next_cursor of the page before, as it came.",
            param="cursor",
        ) from None


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
        principal.account_id,
        project_id=visible(query.project, principal),
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
    after: Position | None = None
    is_last = False
    while not is_last:
        async with parts.database.session() as session:
            rows = await usage_page(
                session,
                principal.account_id,
                project_id=visible(query.project, principal),
                limit=_TABLE_PAGE,
                after=after,
                since=query.since,
                until=query.until,
            )
        is_last = len(rows) < _TABLE_PAGE
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
    return [cells[name] for name in _COLUMNS]


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
