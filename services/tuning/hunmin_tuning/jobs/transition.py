"""One event that happens to one job, in its caller's transaction: the pure machine applied to a locked row."""

from hunmin_contracts.tuning_jobs import JobError
from hunmin_kit.events import Events
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_tuning.jobs import journal
from hunmin_tuning.jobs.states import CLAIMED, Event, Standing, after
from hunmin_tuning.jobs.tables import Job
from hunmin_tuning.jobs.telling import tell_state


def standing_of(job: Job) -> Standing:
    """Return where the job stands."""
    return Standing(
        state=job.state,  # type: ignore[arg-type]  # only `happen` writes it
        attempt=job.attempt,
        is_cancel_wanted=job.is_cancel_wanted,
        is_publishing=job.is_publishing,
        is_orphaned=job.is_orphaned,
    )


async def happen(
    session: AsyncSession,
    job: Job,
    event: Event,
    *,
    max_attempts: int,
    events: Events,
    error: JobError | None = None,
) -> Standing:
    """Let `event` happen to the job, whose row is locked; tell it in the journal, and a new state to other services.

    Raises what states.after raises.
    """
    before = standing_of(job)
    standing = after(before, event, max_attempts=max_attempts)
    if standing == before:
        return standing
    job.state, job.attempt = standing.state, standing.attempt
    job.is_cancel_wanted, job.is_publishing = standing.is_cancel_wanted, standing.is_publishing
    job.is_orphaned = standing.is_orphaned
    if standing.state not in CLAIMED:
        job.token = job.lease_expires_at = None
    if standing.is_ended:
        job.ended_at = func.clock_timestamp()
    if standing.state == "failed" and error is not None:
        job.error = error.model_dump(mode="json")
    await session.flush()
    if (standing.state, standing.is_cancel_wanted) != (before.state, before.is_cancel_wanted):
        await journal.add_state(session, job, standing, None if standing.state == "cancelled" else error)
    if standing.state != before.state:
        await tell_state(events, session, job, standing, error=error)
    return standing
