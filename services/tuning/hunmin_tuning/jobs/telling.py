"""Tells other services what becomes of jobs, by events in the transaction in which it does."""

from hunmin_contracts.events import JOB, JobChanged
from hunmin_contracts.ids import AccountId, JobId
from hunmin_contracts.tuning_jobs import JobError
from hunmin_kit.events import Events
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_tuning.jobs.states import Standing
from hunmin_tuning.jobs.tables import Job


async def tell_state(
    events: Events, session: AsyncSession, job: Job, standing: Standing, *, error: JobError | None
) -> None:
    """Tell the state that the job has come to. The job's row is locked: its events keep the order of its states."""
    told = JobChanged(
        job_id=JobId(job.id),
        account_id=AccountId(job.account_id),
        model=job.request["model"],
        state=standing.state,
        is_ended=standing.is_ended,
        attempt=standing.attempt,
        soft_prompt=job.soft_prompt if standing.state == "succeeded" else None,
        error_code=None if error is None or standing.state == "cancelled" else error.code,
    )
    await events.tell(session, JOB, told, key=told.job_id)
