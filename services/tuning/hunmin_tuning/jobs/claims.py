"""Jobs for those who run them: taken by a lease, and changed only by whoever holds it.

A claim has a token of its own, checked in the transaction of everything that is done with it: a runner that slept
through its lease can do no harm. All times are the database's.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hunmin_contracts.ids import AccountId, JobId
from hunmin_contracts.tuning import JobMetrics, StepMetrics, TuningResult
from hunmin_contracts.tuning_jobs import CreateJobRequest, JobError
from hunmin_kit.data import Database
from hunmin_kit.events import Events
from sqlalchemy import ColumnElement, Interval, and_, cast, func, literal, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from hunmin_tuning.jobs import journal
from hunmin_tuning.jobs.registry import JobLimits
from hunmin_tuning.jobs.states import CLAIMED, ENDED, Event, Standing
from hunmin_tuning.jobs.tables import Job
from hunmin_tuning.jobs.transition import happen

_LOST_LEASE = JobError(code="unavailable", message="What ran the job was lost. The job goes on from its checkpoint.")
_MAX_RETRY_DELAY_S = 600.0


class LeaseLost(Exception):
    """The job is someone else's by now. Its process is too: leave it alone."""


@dataclass(frozen=True)
class Claim:
    """A job in hand, as it was when it was taken."""

    job_id: JobId
    account_id: AccountId
    request: CreateJobRequest
    standing: Standing
    token: str


@dataclass(frozen=True)
class Orders:
    """What its holder must heed."""

    is_cancel_wanted: bool
    is_overdue: bool


class Claims:
    """The queue's other end. Every method is one transaction; those with a claim raise LeaseLost."""

    def __init__(self, database: Database, limits: JobLimits, events: Events) -> None:
        self._database = database
        self._events = events
        self.limits = limits

    async def take(self) -> Claim | None:
        """Take the first job that may start, or None. Jobs whose lease ran out are put back into the queue before."""
        async with self._database.session() as session:
            # One at a time, so that each sees what the others took: an account has so many jobs running, and no more.
            await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('hunmin tuning claim', 0))"))
            await self._lapse(session)
            return await self._take(session)

    async def renew(self, claim: Claim) -> Orders:
        """Hold the job for another `lease_s`; return what to heed."""
        deadline_s = claim.request.deadline_s
        renewed = (
            update(Job)
            .where(_is_held(claim))
            .values(lease_expires_at=_in_s(self.limits.lease_s))
            .returning(Job.is_cancel_wanted, Job.started_at + _seconds(deadline_s) < func.clock_timestamp())
        )
        async with self._database.session() as session:
            row = (await session.execute(renewed)).one_or_none()
        if row is None:
            raise LeaseLost
        return Orders(is_cancel_wanted=row[0], is_overdue=row[1])

    async def record(
        self, claim: Claim, *, metrics: Sequence[JobMetrics], lines: Sequence[str], log_offset: int
    ) -> None:
        """Tell metrics, which may have been told before, and the log's lines up to byte `log_offset`."""
        async with self._database.session() as session:
            job = await self._held(session, claim)
            job.log_offset = log_offset
            job.step = max([job.step, *(entry.step for entry in metrics)])
            for entry in metrics:
                if isinstance(entry, StepMetrics):
                    job.total_steps = entry.total_steps
            await session.flush()
            await journal.add_output(session, job, metrics, lines)

    async def log_offset(self, claim: Claim) -> int:
        """Return the byte up to which the log is told."""
        async with self._database.session() as session:
            return (await self._held(session, claim)).log_offset

    async def apply(self, claim: Claim, event: Event, *, error: JobError | None = None) -> Standing:
        """Let `event` happen to the job; return how it stands, which a cancel may have decided."""
        async with self._database.session() as session:
            job = await self._held(session, claim)
            standing = await self._happen(session, job, event, error=error)
            if standing.state == "queued" and error is not None:
                job.not_before = _in_s(self._delay_s(event, standing.attempt))
            return standing

    def _delay_s(self, event: Event, attempt: int) -> float:
        """Return how long a job rests that was given back for an error."""
        if event is Event.RELEASE:
            return self.limits.away_delay_s
        return min(self.limits.retry_delay_s * 2.0 ** (attempt - 2), _MAX_RETRY_DELAY_S)

    async def succeed(self, claim: Claim, result: TuningResult, soft_prompt: str) -> Standing:
        """End the job well."""
        async with self._database.session() as session:
            job = await self._held(session, claim)
            job.result = result.model_dump(mode="json")
            job.soft_prompt = soft_prompt
            return await self._happen(session, job, Event.SUCCEED)

    async def ended(self, job_ids: Sequence[str]) -> set[str]:
        """Return those of these jobs that have ended."""
        async with self._database.session() as session:
            return set(await session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state.in_(ENDED))))

    async def _lapse(self, session: AsyncSession) -> None:
        lost = select(Job).where(Job.state.in_(CLAIMED), Job.lease_expires_at < func.clock_timestamp())
        for job in await session.scalars(lost.with_for_update(skip_locked=True)):
            await self._happen(session, job, Event.LAPSE, error=_LOST_LEASE)

    async def _take(self, session: AsyncSession) -> Claim | None:
        first = (
            select(Job.id)
            .where(Job.state == "queued", or_(Job.is_orphaned, and_(_is_due(), _has_room(self.limits))))
            .order_by(Job.is_orphaned.desc(), Job.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        token = secrets.token_hex(16)
        taken = (
            update(Job)
            .where(Job.id == first.scalar_subquery(), Job.state == "queued")
            .values(
                token=token,
                lease_expires_at=_in_s(self.limits.lease_s),
                started_at=func.coalesce(Job.started_at, func.clock_timestamp()),
            )
            .returning(Job)
            .execution_options(populate_existing=True)
        )
        job = await session.scalar(taken)
        if job is None:
            return None
        standing = await self._happen(session, job, Event.CLAIM)
        request = CreateJobRequest.model_validate(job.request)
        return Claim(JobId(job.id), request.account_id, request, standing, token)

    async def _happen(
        self, session: AsyncSession, job: Job, event: Event, *, error: JobError | None = None
    ) -> Standing:
        return await happen(
            session, job, event, max_attempts=self.limits.max_attempts, events=self._events, error=error
        )

    async def _held(self, session: AsyncSession, claim: Claim) -> Job:
        job = await session.scalar(select(Job).where(_is_held(claim)).with_for_update())
        if job is None:
            raise LeaseLost
        return job


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return and_(Job.id == claim.job_id, Job.token == claim.token)


def _is_due() -> ColumnElement[bool]:
    return Job.not_before <= func.clock_timestamp()


def _has_room(limits: JobLimits) -> ColumnElement[bool]:
    running = aliased(Job)
    count = select(func.count()).where(running.account_id == Job.account_id, running.state.in_(CLAIMED))
    return count.correlate(Job).scalar_subquery() < limits.max_running_per_account


def _in_s(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + _seconds(seconds)


def _seconds(seconds: float) -> ColumnElement[Any]:
    return cast(literal(f"{seconds} seconds"), Interval)
