"""Which jobs there are, for those who ask for them: the statements behind the API. The runner's are in claims.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, JobId, new_job_id
from hunmin_contracts.tuning_jobs import (
    CreateJobRequest,
    JobEvent,
    JobHistory,
    JobHistoryRequest,
    JobInfo,
    JobMetricsPage,
    JobMetricsRequest,
    JobPage,
    ListJobsRequest,
    QueuePlace,
)
from hunmin_kit.data import Database
from hunmin_kit.events import Events
from sqlalchemy import Float, case, extract, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_tuning.jobs import journal
from hunmin_tuning.jobs.queue import starts_in_s
from hunmin_tuning.jobs.states import CLAIMED, ENDED, Event, Standing
from hunmin_tuning.jobs.tables import Job
from hunmin_tuning.jobs.telling import tell_state
from hunmin_tuning.jobs.transition import happen

_RECENT = 20  # jobs that a guess stands on
_STORED = (
    "id", "request", "state", "attempt", "is_cancel_wanted", "step", "total_steps", "error", "result", "soft_prompt"
)  # fmt: skip
_TIMES = ("created_at", "started_at", "ended_at")


@dataclass(frozen=True)
class JobLimits:
    """What the service gives its jobs. `slots`: how many run at a time in one process of the service."""

    max_attempts: int = 5
    max_running_per_account: int = 1
    slots: int = 1
    lease_s: float = 30.0
    retry_delay_s: float = 2.0  # before the second attempt; then doubled, up to ten minutes
    away_delay_s: float = 15.0  # before a job whose models' service was away is taken up again, until its deadline


class Registry:
    """Jobs by account. Every method is one transaction."""

    def __init__(self, database: Database, limits: JobLimits, events: Events) -> None:
        self._database = database
        self._limits = limits
        self._events = events

    async def add(self, request: CreateJobRequest, *, job_id: JobId | None = None) -> JobInfo:
        """Put a job at the queue's end, or return the one that has this id; `conflict` if that is another's."""
        start = Standing()
        added = insert(Job).values(
            id=job_id or new_job_id(),
            account_id=request.account_id,
            request=request.model_dump(mode="json"),
            state=start.state,
            attempt=start.attempt,
            is_cancel_wanted=start.is_cancel_wanted,
            is_publishing=start.is_publishing,
            is_orphaned=start.is_orphaned,
        )
        async with self._database.session() as session:
            job = await session.scalar(added.on_conflict_do_nothing(index_elements=[Job.id]).returning(Job))
            if job is None:
                return await self._known(session, request, job_id)
            await journal.add_state(session, job, start, None)
            await tell_state(self._events, session, job, start, error=None)
            await session.refresh(job)
            return await self._info(session, job)

    async def find(self, account_id: AccountId, job_id: JobId) -> JobInfo:
        """Return one job; `not_found` if the account has none of this id."""
        async with self._database.session() as session:
            return await self._info(session, await self._row(session, account_id, job_id))

    async def page(self, request: ListJobsRequest) -> JobPage:
        """List the account's jobs, newest first."""
        statement = select(Job).where(Job.account_id == request.account_id).order_by(Job.number.desc())
        if request.state is not None:
            statement = statement.where(Job.state == request.state)
        async with self._database.session() as session:
            if request.after is not None:
                wanted = select(Job.number).where(Job.account_id == request.account_id, Job.id == request.after)
                last = await session.scalar(wanted)
                if last is None:
                    raise _no_page_after(request.after)
                statement = statement.where(Job.number < last)
            rows = (await session.scalars(statement.limit(request.limit + 1))).all()
            data = [await self._info(session, row) for row in rows[: request.limit]]
        return JobPage(data=data, has_more=len(rows) > request.limit)

    async def cancel(self, account_id: AccountId, job_id: JobId) -> JobInfo:
        """Cancel a job, or ask its runner to; `conflict` if it has succeeded, failed, or is being published."""
        async with self._database.session() as session:
            job = await self._row(session, account_id, job_id, is_locked=True)
            limit = self._limits.max_attempts
            await happen(session, job, Event.CANCEL, max_attempts=limit, events=self._events)
            await session.refresh(job)
            return await self._info(session, job)

    async def metrics(self, request: JobMetricsRequest) -> JobMetricsPage:
        """Return a page of a job's metrics."""
        async with self._database.session() as session:
            await self._row(session, request.account_id, request.job_id)
            return await journal.read_metrics(session, request)

    async def events(
        self, account_id: AccountId, job_id: JobId, *, after: int, limit: int
    ) -> tuple[Sequence[JobEvent], bool]:
        """Return what it told behind number `after`, at most `limit`, and whether that is all there will ever be."""
        async with self._database.session() as session:
            # Before its entries are read: once it has ended, all of them are committed.
            is_ended = (await self._row(session, account_id, job_id)).state in ENDED
            events = await journal.read(session, job_id, after, limit)
        return events, is_ended and len(events) < limit

    async def history(self, request: JobHistoryRequest) -> JobHistory:
        """Return a page of what a job told, newest first."""
        async with self._database.session() as session:
            await self._row(session, request.account_id, request.job_id)
            return await journal.read_back(session, request)

    async def _known(self, session: AsyncSession, request: CreateJobRequest, job_id: JobId | None) -> JobInfo:
        job = await session.get(Job, job_id)
        if job is None or CreateJobRequest.model_validate(job.request) != request:
            raise HunminError(
                ErrorCode.CONFLICT,
                f"There is another job {job_id}. Ask for this one with an id of its own.",
                param="job_id",
            )
        return await self._info(session, job)

    async def _row(
        self, session: AsyncSession, account_id: AccountId, job_id: JobId, *, is_locked: bool = False
    ) -> Job:
        wanted = select(Job).where(Job.account_id == account_id, Job.id == job_id)
        job = await session.scalar(wanted.with_for_update() if is_locked else wanted)
        if job is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no job {job_id[:80]!r}. Name one of the account's own.")
        return job

    async def _info(self, session: AsyncSession, job: Job) -> JobInfo:
        values = {field: getattr(job, field) for field in (*_STORED, *_TIMES)}
        place = await self._place(session, job) if job.state == "queued" else None
        tokens = await journal.trained_tokens(session, job.id) if job.state in ENDED else None
        return JobInfo.model_validate({**values, "queue": place, "trained_tokens": tokens})

    async def _place(self, session: AsyncSession, job: Job) -> QueuePlace:
        is_ahead = (Job.ended_at.is_(None), Job.state == "queued", Job.number < job.number)
        ahead = (await session.scalars(select(Job.account_id).where(*is_ahead).order_by(Job.number))).all()
        mean_s = await self._mean_s(session, job.account_id)
        if mean_s is None:
            return QueuePlace(position=len(ahead) + 1, starts_in_s=None)
        left_s = func.greatest(mean_s - extract("epoch", func.clock_timestamp() - Job.started_at), 0).cast(Float)
        running = select(Job.account_id, left_s).where(Job.ended_at.is_(None), Job.state.in_(CLAIMED))
        guess_s = starts_in_s(
            job.account_id,
            ahead=ahead,
            running=(await session.execute(running)).tuples().all(),
            duration_s=mean_s,
            slots=self._limits.slots,
            max_running_per_account=self._limits.max_running_per_account,
        )
        return QueuePlace(position=len(ahead) + 1, starts_in_s=guess_s)

    async def _mean_s(self, session: AsyncSession, account_id: str) -> float | None:
        """Return the mean duration of the account's recent jobs, or where it has none, of all."""
        is_own = case((Job.account_id == account_id, 0), else_=1)
        duration = extract("epoch", Job.ended_at - Job.started_at).cast(Float).label("duration_s")
        recent = (
            select(is_own.label("is_foreign"), duration)
            .where(Job.state == "succeeded")
            .order_by(is_own, Job.number.desc())
            .limit(_RECENT)
            .subquery()
        )
        means = select(func.avg(recent.c.duration_s)).group_by(recent.c.is_foreign).order_by(recent.c.is_foreign)
        return (await session.execute(means.limit(1))).scalar()


def _no_page_after(job_id: JobId) -> HunminError:
    return HunminError(
        ErrorCode.INVALID_PARAMETER,
        f"No page of the account's jobs ended with {job_id[:80]!r}. Send the last id of the page before, as it came.",
        param="after",
    )
