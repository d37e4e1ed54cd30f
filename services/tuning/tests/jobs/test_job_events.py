"""What other services are told of jobs: every new state, with the transaction in which it came, or not at all."""

from collections.abc import Callable

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import JOB, JobChanged
from hunmin_contracts.ids import JobId, new_job_id
from hunmin_contracts.tuning import TuningResult
from hunmin_contracts.tuning_jobs import CreateJobRequest, JobError
from hunmin_kit.data import Database
from hunmin_kit.testing.events import events_of
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.registry import JobLimits, Registry
from hunmin_tuning.jobs.states import Event, IllegalEvent
from sqlalchemy import text

RequestOf = Callable[..., CreateJobRequest]
BROKEN = JobError(code="unavailable", message="It broke off.")


class Jobs:
    """Both ends of the queue, and the outbox."""

    def __init__(self, database: Database) -> None:
        limits, events = JobLimits(max_attempts=2, retry_delay_s=0.0), events_of(database)
        self.registry = Registry(database, limits, events)
        self.claims = Claims(database, limits, events)
        self._database = database

    async def take(self) -> Claim:
        claim = await self.claims.take()
        assert claim is not None
        return claim

    async def told(self, job_id: str) -> list[JobChanged]:
        """Return what was told of a job, in order."""
        async with self._database.session() as session:
            rows = await session.execute(text("SELECT topic, key, content FROM event_outbox ORDER BY number"))
            events = [(row.key, JOB.envelope.model_validate_json(row.content)) for row in rows if row.topic == JOB.name]
        assert all(key == event.subject == event.data.job_id for key, event in events)
        return [event.data for _, event in events if event.data.job_id == job_id]

    async def states(self, job_id: str) -> list[tuple[str, int, bool]]:
        return [(one.state, one.attempt, one.is_ended) for one in await self.told(job_id)]


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def test_a_job_s_states_are_told_in_order(jobs: Jobs, request_of: RequestOf, result: TuningResult) -> None:
    job_id = (await jobs.registry.add(request_of("acct_7"))).id
    claim = await jobs.take()
    for event in (Event.START, Event.PUBLISH):
        await jobs.claims.apply(claim, event)
    await jobs.claims.succeed(claim, result, "mood@1")
    told = await jobs.told(job_id)
    assert [one.state for one in told] == ["queued", "preparing", "running", "succeeded"]
    assert [one.is_ended for one in told] == [False, False, False, True]
    assert [one.soft_prompt for one in told] == [None, None, None, "mood@1"]
    assert {(one.account_id, one.model, one.attempt, one.error_code) for one in told} == {
        ("acct_7", "starter", 1, None)
    }


async def test_a_job_that_breaks_off_is_told_of_with_why_until_it_fails(jobs: Jobs, request_of: RequestOf) -> None:
    job_id = (await jobs.registry.add(request_of())).id
    for _ in range(2):
        claim = await jobs.take()
        await jobs.claims.apply(claim, Event.START)
        await jobs.claims.apply(claim, Event.BREAK, error=BROKEN)
    assert (await jobs.states(job_id))[3:] == [
        ("queued", 2, False),
        ("preparing", 2, False),
        ("running", 2, False),
        ("failed", 2, True),
    ]
    assert [one.error_code for one in await jobs.told(job_id)][3:] == ["unavailable", None, None, "unavailable"]


async def test_a_cancel_is_told_once_it_has_happened(jobs: Jobs, request_of: RequestOf) -> None:
    job = await jobs.registry.add(request_of())
    claim = await jobs.take()
    await jobs.claims.apply(claim, Event.START)
    for _ in range(2):
        await jobs.registry.cancel(job.request.account_id, job.id)
    assert (await jobs.states(job.id))[-1] == ("running", 1, False)  # it is only wanted
    await jobs.claims.apply(claim, Event.STOP)
    await jobs.registry.cancel(job.request.account_id, job.id)
    assert [state for state, _, _ in await jobs.states(job.id)] == ["queued", "preparing", "running", "cancelled"]


async def test_what_does_not_happen_is_not_told(jobs: Jobs, request_of: RequestOf) -> None:
    job_id = (await jobs.registry.add(request_of())).id
    claim = await jobs.take()
    with pytest.raises(IllegalEvent):
        await jobs.claims.apply(claim, Event.SUCCEED)
    assert len(await jobs.told(job_id)) == 2


async def test_a_job_that_is_asked_for_again_by_its_id_is_the_same(jobs: Jobs, request_of: RequestOf) -> None:
    job_id = new_job_id()
    first, again = [await jobs.registry.add(request_of(), job_id=job_id) for _ in range(2)]
    assert first.id == again.id == job_id
    assert await jobs.states(job_id) == [("queued", 1, False)]
    for other in (request_of("acct_2"), request_of(name="another")):
        with pytest.raises(HunminError) as refused:
            await jobs.registry.add(other, job_id=JobId(job_id))
        assert refused.value.code is ErrorCode.CONFLICT
    assert len(await jobs.told(job_id)) == 1
