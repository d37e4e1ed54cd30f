"""Holds the ledger against what generation told of the calls of each exchange.

A gateway settles its own exchanges. One that was killed leaves no row of usage; when that has been missing for so long
that nobody can be about to write it, it is written here, from the events of the exchange's calls. And where a client
left, the engine goes on until it hears of it: what it computed meanwhile is added by a row that corrects the first, as
soon as all calls are told of. Until then quotas hold the room that it may have taken (usage/settling.py).
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta

import structlog
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.events import Envelope, UsageMetered
from hunmin_contracts.ids import AccountId, ApiKeyId, BatchId, ProjectId, RequestId, UsageId
from hunmin_contracts.usage import Outcome
from hunmin_kit.background import in_background
from hunmin_kit.data import Database
from hunmin_kit.observe.tracing import current_trace_id
from sqlalchemy import ColumnElement, Interval, Row, and_, cast, delete, func, insert, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import MeteredCall, Usage
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.record import UsageRecord

_QUIET_S = 60.0  # since the last event of an exchange: one that has not come by then was lost with generation
_MISSING_S = 86400.0  # since then: a call that is still not told of, though its gateway saw it run, never will be
_AT_ONCE = 100
_COUNTS = ("prompt_tokens", "completion_tokens", "backward_tokens")
_log = structlog.get_logger()


class LostExchanges:
    """One gateway's part in it; several may do the same at a time, and each row is written once.

    `lost_after_s` is longer than an exchange may last, its settlement included: before that it may still be running.
    """

    def __init__(self, database: Database, ledger: UsageLedger, *, lost_after_s: float, every_s: float) -> None:
        self._database = database
        self._ledger = ledger
        self._lost_after_s = lost_after_s
        self._quiet_s = min(_QUIET_S, lost_after_s)
        self._every_s = every_s

    async def note(self, session: AsyncSession, event: Envelope[UsageMetered]) -> None:
        """Take note of a call that has ended, in the trace that it was part of: the consumer goes on with it."""
        call = {"event_id": event.id, "ended_at": event.time, "trace_id": current_trace_id(), **dict(event.data)}
        await session.execute(insert(MeteredCall).values(call))

    def settled(self) -> AbstractAsyncContextManager[None]:
        """Settle what is lost, again and again, as long as the context is open."""
        return in_background(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.settle()
            except Exception as error:  # the consumer's edge: the next turn may find it mended
                _log.error("usage.lost.not_settled", exc_info=error)

    async def settle(self) -> int:
        """Forget the calls of exchanges that are settled, correct those that were cut, and settle those that are lost;
        return how many these were."""
        settled = 0
        while True:
            cut, lost = await self._settle_some()
            settled += lost
            if cut < _AT_ONCE and lost < _AT_ONCE:
                return settled

    async def _settle_some(self) -> tuple[int, int]:
        """Do so with `_AT_ONCE` of each at most; return how many were cut, and how many lost."""
        async with self._database.session() as session:
            final = select(Usage.id).where(Usage.status != Outcome.CANCELLED)
            await session.execute(delete(MeteredCall).where(MeteredCall.usage_id.in_(final)))
            cut = await self._cut(session)
            lost = await self._lost(session)
        for row, *untold in cut:
            if any(untold):
                await self._ledger.settle(_correction(row, *untold))
            else:
                await self._ledger.release(UsageId(row.id))
            async with self._database.session() as session:
                await session.execute(delete(MeteredCall).where(MeteredCall.usage_id == row.id))
        for usage_id in lost:
            async with self._database.session() as session:
                calls = (await session.scalars(select(MeteredCall).where(MeteredCall.usage_id == usage_id))).all()
            if calls:
                record = _record(calls)
                await self._ledger.settle(record)
                _log.warning("usage.exchange.lost", usage_id=usage_id, request_id=record.request_id, calls=len(calls))
        return len(cut), len(lost)

    async def _cut(self, session: AsyncSession) -> Sequence[Row[tuple[Usage, int, int, int]]]:
        """Return the rows of exchanges that were cut and are told of, each with what it lacks of all three counts.

        A call may be told of long after the others, where the broker was away in between, and a row is corrected once:
        one whose prompt the row counts is waited for. If it is never told of, since generation was killed, what the row
        knew may be more than what the others come to.
        """
        noted_at, now = func.max(MeteredCall.noted_at), func.clock_timestamp()
        told = (
            select(
                MeteredCall.usage_id,
                *(func.sum(getattr(MeteredCall, name)).label(name) for name in _COUNTS),
                (func.count() >= func.max(MeteredCall.calls)).label("is_all"),
                (noted_at < now - _seconds(self._quiet_s)).label("is_quiet"),
                (noted_at < now - _seconds(_MISSING_S)).label("is_given_up"),
            )
            .group_by(MeteredCall.usage_id)
            .subquery()
        )
        has_all_seen = told.c.prompt_tokens >= Usage.prompt_tokens
        is_due = or_(told.c.is_all, and_(told.c.is_quiet, has_all_seen), told.c.is_given_up)
        lacking = [func.greatest(told.c[name] - getattr(Usage, name), 0) for name in _COUNTS]
        cut = select(Usage, *lacking).join(told, told.c.usage_id == Usage.id).where(is_due)
        return (await session.execute(cut.where(Usage.status == Outcome.CANCELLED).limit(_AT_ONCE))).all()

    async def _lost(self, session: AsyncSession) -> Sequence[str]:
        now = func.clock_timestamp()
        lost = (
            select(MeteredCall.usage_id)
            .where(~select(Usage.id).where(Usage.id == MeteredCall.usage_id).exists())
            .group_by(MeteredCall.usage_id)
            .having(func.min(MeteredCall.started_at) < now - _seconds(self._lost_after_s))
            .having(func.max(MeteredCall.noted_at) < now - _seconds(self._quiet_s))
        )
        return (await session.scalars(lost.limit(_AT_ONCE))).all()


def _correction(row: Usage, prompt_tokens: int, completion_tokens: int, backward_tokens: int) -> UsageRecord:
    """Return the row that adds these to `row`. Its id is always the same, so that it is written once."""
    return UsageRecord(
        id=UsageId(f"{row.id}_c"),
        request_id=RequestId(row.request_id),
        account_id=AccountId(row.account_id),
        project_id=None if row.project_id is None else ProjectId(row.project_id),
        key_id=ApiKeyId(row.key_id),
        model=row.model,
        endpoint=row.endpoint,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        backward_tokens=backward_tokens,
        status=Outcome.CANCELLED,
        error_code=None,
        started_at=row.started_at,
        duration_s=0.0,
        corrects=UsageId(row.id),
        batch_id=None if row.batch_id is None else BatchId(row.batch_id),
        trace_id=row.trace_id,
    )


def _record(calls: Sequence[MeteredCall]) -> UsageRecord:
    """Return the row that the gateway would have written: a failed call costs the exchange nothing."""
    first = calls[0]
    outcomes = {call.outcome for call in calls}
    status = next((one for one in (Outcome.FAILED, Outcome.CANCELLED) if one in outcomes), Outcome.SUCCEEDED)
    is_failed = status is Outcome.FAILED
    code = next((call.error_code for call in calls if call.error_code is not None), None)
    ended_at: datetime = max(call.ended_at for call in calls)
    return UsageRecord(
        id=UsageId(first.usage_id),
        request_id=RequestId(first.request_id),
        account_id=AccountId(first.account_id),
        project_id=None,
        key_id=ApiKeyId(first.key_id),
        model=first.model,
        endpoint=first.endpoint,
        prompt_tokens=0 if is_failed else sum(call.prompt_tokens for call in calls),
        completion_tokens=0 if is_failed else sum(call.completion_tokens for call in calls),
        backward_tokens=0 if is_failed else sum(call.backward_tokens for call in calls),
        status=status,
        error_code=_code(code) if is_failed else None,
        started_at=first.started_at,
        duration_s=max((ended_at - first.started_at).total_seconds(), 0.0),
        batch_id=None if first.batch_id is None else BatchId(first.batch_id),
        trace_id=first.trace_id,
        is_awaited=status is Outcome.CANCELLED and len(calls) < (first.calls or 0),
    )


def _code(told: str | None) -> ErrorCode:
    return ErrorCode(told) if told in set(ErrorCode) else ErrorCode.INTERNAL


def _seconds(seconds: float) -> ColumnElement[timedelta]:
    return cast(literal(f"{seconds} seconds"), Interval())
