"""Sums over the rows of an account's usage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from hunmin_contracts.usage import Outcome
from sqlalchemy import ColumnElement, Date, RowMapping, case, cast, func, literal_column, null, select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import Usage
from hunmin_gateway.tenancy.reach import Reach

Grouping = Literal["day", "project", "key", "model"]


async def usage_sums(
    session: AsyncSession,
    reach: Reach,
    *,
    by: frozenset[Grouping],
    since: datetime,
    until: datetime,
    limit: int,
) -> Sequence[RowMapping]:
    """Return the sums of what was started in `[since, until)`, at most `limit`, with the fields of UsageSum."""
    dimensions: dict[Grouping, ColumnElement[Any]] = {
        "day": cast(func.timezone(literal_column("'UTC'"), Usage.started_at), Date),
        "project": Usage.project_id.expression,
        "key": Usage.key_id.expression,
        "model": Usage.model.expression,
    }
    names = {"day": "day", "project": "project_id", "key": "key_id", "model": "model"}
    is_request = Usage.corrects.is_(None)
    outcomes = [
        func.count().filter(is_request, Usage.status == outcome).label(outcome)
        for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)
    ]
    counts = [
        func.sum(column).label(column.key)
        for column in (Usage.prompt_tokens, Usage.completion_tokens, Usage.backward_tokens)
    ]
    tokens = Usage.prompt_tokens + Usage.completion_tokens
    is_of_batch = Usage.batch_id.is_not(None)
    halves = case((is_of_batch, (tokens + 1) // 2), else_=tokens)  # as quotas/amounts.py counts them; of whole numbers
    counts += [
        func.coalesce(func.sum(tokens).filter(is_of_batch), 0).label("batch_tokens"),
        func.sum(halves).label("quota_tokens"),
    ]
    grouped = [dimension for name, dimension in dimensions.items() if name in by]
    order = [dimension.desc() if name == "day" else dimension for name, dimension in dimensions.items() if name in by]
    found = await session.execute(
        select(
            *((dimension if name in by else null()).label(names[name]) for name, dimension in dimensions.items()),
            func.count().filter(is_request).label("requests"),
            *outcomes,
            *counts,
        )
        .where(reach.of(Usage), Usage.started_at >= since, Usage.started_at < until)
        .group_by(*grouped)
        .order_by(*order)
        .limit(limit)
    )
    return found.mappings().all()
