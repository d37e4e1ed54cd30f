"""The queue and the journal on PostgreSQL: one holder at a time, one order, everything told once."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import StepMetrics, TuningResult, ValidationMetrics
from hunmin_contracts.tuning_jobs import (
    CreateJobRequest,
    JobError,
    JobMetricsRequest,
    ListJobsRequest,
    LogEvent,
    MetricsEvent,
    StateEvent,
)
from hunmin_kit.data import Database
from hunmin_kit.testing.events import events_of
from hunmin_tuning.jobs.claims import Claim, Claims, LeaseLost
from hunmin_tuning.jobs.registry import JobLimits, Registry
from hunmin_tuning.jobs.states import Event
from sqlalchemy import text

ACCOUNT = "acct_1"
RequestOf = Callable[..., CreateJobRequest]


def step(number: int, loss: float = 1.0) -> StepMetrics:
    return StepMetrics(
        step=number, total_steps=99, epoch=0, loss=loss, learning_rate=0.1, gradient_norm=1.0, tokens=9, duration_s=0.1
    )


class Jobs:
    """Both ends of the queue."""

    def __init__(self, database: Database, **limits: float) -> None:
        self.database = database
        self.limits = JobLimits(**{"retry_delay_s": 0.0, **limits})
        self.registry = Registry(database, self.limits, events_of(database))
        self.claims = Claims(database, self.limits, events_of(database))

    async def take(self) -> Claim:
        claim = await self.claims.take()
        assert claim is not None
        return claim

    async def started(self) -> Claim:
        claim = await self.take()
        assert (await self.claims.apply(claim, Event.START)).state == "running"
        return claim

    async def end(self, claim: Claim, result: TuningResult) -> None:
        await self.claims.apply(claim, Event.PUBLISH)
        assert (await self.claims.succeed(claim, result, "mood@1")).state == "succeeded"

    async def let_the_lease_run_out(self, claim: Claim) -> None:
        await self.change(claim.job_id, "lease_expires_at = now() - interval '1 second'")

    async def change(self, job_id: str, assignment: str) -> None:
        async with self.database.session() as session:
            await session.execute(text(f"UPDATE jobs SET {assignment} WHERE id = :id"), {"id": job_id})  # noqa: S608

    async def events(self, job_id: str, after: int = 0) -> list:
        events, _ = await self.registry.events(ACCOUNT, job_id, after=after, limit=1000)
        return [event.root for event in events]


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


class TestQueue:
    async def test_gives_jobs_in_the_order_they_came(self, database: Database, request_of: RequestOf):
        jobs = Jobs(database, max_running_per_account=9)
        added = [(await jobs.registry.add(request_of(f"acct_{i % 2}"))).id for i in range(5)]
        assert [(await jobs.take()).job_id for _ in added] == added
        assert await jobs.claims.take() is None

    async def test_gives_each_job_to_one_of_many(self, database: Database, request_of: RequestOf):
        jobs = Jobs(database, max_running_per_account=99)
        added = {(await jobs.registry.add(request_of(f"acct_{i}"))).id for i in range(8)}
        taken = await asyncio.gather(*(jobs.claims.take() for _ in range(16)))
        assert Counter(claim.job_id for claim in taken if claim) == dict.fromkeys(added, 1)
        assert len({claim.token for claim in taken if claim}) == 8

    async def test_holds_an_account_to_its_limit_when_many_take_at_once(self, database: Database, request_of):
        jobs = Jobs(database, max_running_per_account=2)
        for _ in range(5):
            await jobs.registry.add(request_of())
        other = await jobs.registry.add(request_of("acct_2"))
        taken = [claim for claim in await asyncio.gather(*(jobs.claims.take() for _ in range(10))) if claim]
        assert Counter(claim.account_id for claim in taken) == {"acct_1": 2, "acct_2": 1}
        assert other.id in {claim.job_id for claim in taken}

    async def test_tells_the_place_and_when_it_may_start(self, jobs: Jobs, request_of: RequestOf, result):
        first = await jobs.registry.add(request_of())
        assert (first.queue.position, first.queue.starts_in_s) == (1, None)
        await jobs.end(await jobs.started(), result)
        await jobs.change(first.id, "started_at = ended_at - interval '100 seconds'")
        assert (await jobs.registry.find(ACCOUNT, first.id)).queue is None
        second = await jobs.registry.add(request_of())
        assert second.queue.starts_in_s == 0
        await jobs.started()
        third = await jobs.registry.add(request_of())
        fourth = await jobs.registry.add(request_of("acct_2"))  # it has none of its own: all jobs' mean
        assert (third.queue.position, fourth.queue.position) == (1, 2)
        assert third.queue.starts_in_s == pytest.approx(100, abs=5)
        assert fourth.queue.starts_in_s == pytest.approx(200, abs=5)

    @pytest.mark.parametrize(
        ("slots", "limit", "guesses"), [(1, 1, [100, 200, 300]), (2, 1, [100, 200, 0]), (2, 2, [0, 100, 100])]
    )
    async def test_guesses_by_the_limit_of_an_account_too(
        self, database: Database, request_of: RequestOf, result, slots: int, limit: int, guesses: list[int]
    ):
        jobs = Jobs(database, slots=slots, max_running_per_account=limit)
        first = await jobs.registry.add(request_of())
        await jobs.end(await jobs.started(), result)
        await jobs.change(first.id, "started_at = ended_at - interval '100 seconds'")
        await jobs.registry.add(request_of())
        await jobs.started()
        waiting = [await jobs.registry.add(request_of(account)) for account in (ACCOUNT, ACCOUNT, "acct_2")]
        assert [job.queue.position for job in waiting] == [1, 2, 3]
        assert [job.queue.starts_in_s for job in waiting] == pytest.approx(guesses, abs=5)

    async def test_tries_a_job_again_after_a_while_and_before_those_behind_it(self, database, request_of: RequestOf):
        jobs = Jobs(database, retry_delay_s=50.0, max_attempts=3)
        broken, behind = [(await jobs.registry.add(request_of())).id for _ in range(2)]
        error = JobError(code="internal", message="It crashed.")
        assert (await jobs.claims.apply(await jobs.started(), Event.BREAK, error=error)).state == "queued"
        waiting = await jobs.take()
        assert waiting.job_id == behind
        await jobs.claims.apply(waiting, Event.RELEASE)
        await jobs.change(broken, "not_before = now()")
        again = await jobs.take()
        assert (again.job_id, again.standing.attempt) == (broken, 2)


class TestLease:
    async def test_that_ran_out_is_another_s(self, jobs: Jobs, request_of: RequestOf):
        added = await jobs.registry.add(request_of())
        lost = await jobs.started()
        assert await jobs.claims.take() is None
        await jobs.let_the_lease_run_out(lost)
        found = await jobs.take()
        assert (found.job_id, found.standing.attempt, found.standing.is_orphaned) == (added.id, 2, True)
        for doing in (
            jobs.claims.renew(lost),
            jobs.claims.record(lost, metrics=[step(1)], lines=["late"], log_offset=4),
            *(jobs.claims.apply(lost, event) for event in Event),
        ):
            with pytest.raises(LeaseLost):
                await doing
        await jobs.claims.renew(found)
        assert not [event for event in await jobs.events(added.id) if event.type != "state"]

    async def test_is_held_by_renewing(self, jobs: Jobs, request_of: RequestOf):
        await jobs.registry.add(request_of())
        claim = await jobs.started()
        await jobs.let_the_lease_run_out(claim)
        await jobs.claims.renew(claim)
        assert await jobs.claims.take() is None

    async def test_of_a_job_that_was_left_comes_before_the_queue_and_its_limits(self, jobs: Jobs, request_of):
        first, *_ = [await jobs.registry.add(request_of()) for _ in range(3)]
        await jobs.let_the_lease_run_out(await jobs.started())
        await jobs.change(first.id, "not_before = now() + interval '1 day'")
        assert (await jobs.take()).job_id == first.id

    async def test_tells_of_a_cancel_and_of_the_deadline(self, jobs: Jobs, request_of: RequestOf):
        added = await jobs.registry.add(request_of(deadline_s=1000))
        claim = await jobs.started()
        orders = await jobs.claims.renew(claim)
        assert not orders.is_cancel_wanted
        assert not orders.is_overdue
        await jobs.change(added.id, "started_at = now() - interval '1001 seconds'")
        asked = await jobs.registry.cancel(ACCOUNT, added.id)
        assert (asked.state, asked.is_cancel_wanted) == ("running", True)
        orders = await jobs.claims.renew(claim)
        assert orders.is_cancel_wanted
        assert orders.is_overdue


class TestCancel:
    async def test_against_success_ends_in_one_of_them(self, jobs: Jobs, request_of: RequestOf, result):
        async def cancel(job_id: str) -> bool:
            try:
                return (await jobs.registry.cancel(ACCOUNT, job_id)).is_cancel_wanted
            except HunminError as error:
                if error.code != ErrorCode.CONFLICT:
                    raise
                return False

        async def publish(claim: Claim) -> bool:
            standing = await jobs.claims.apply(claim, Event.PUBLISH)
            if standing.is_ended:
                return False
            return (await jobs.claims.succeed(claim, result, "mood@1")).state == "succeeded"

        seen = set()
        for number in range(20):
            added = await jobs.registry.add(request_of())
            claim = await jobs.started()
            doings = [cancel(added.id), publish(claim)]
            outcome = await asyncio.gather(*(doings if number % 2 else doings[::-1]))
            is_cancelled, is_published = outcome if number % 2 else outcome[::-1]
            assert is_cancelled != is_published
            info = await jobs.registry.find(ACCOUNT, added.id)
            assert info.state == ("succeeded" if is_published else "cancelled")
            assert (info.soft_prompt is not None) == is_published
            seen.add(info.state)
        assert seen <= {"succeeded", "cancelled"}

    async def test_of_a_queued_job_takes_it_out(self, jobs: Jobs, request_of: RequestOf):
        added = await jobs.registry.add(request_of())
        cancelled = await jobs.registry.cancel(ACCOUNT, added.id)
        assert (cancelled.state, cancelled.queue) == ("cancelled", None)
        assert cancelled.ended_at is not None
        assert await jobs.claims.take() is None


class TestJournal:
    async def test_tells_everything_once_and_in_order(self, jobs: Jobs, request_of: RequestOf, result):
        added = await jobs.registry.add(request_of())
        claim = await jobs.started()
        evaluation = ValidationMetrics(step=2, loss=0.5, accuracy=0.9, is_best=True)
        await jobs.claims.record(claim, metrics=[step(1), step(2)], lines=["하나", "nul \0"], log_offset=9)
        await jobs.claims.record(
            claim, metrics=[step(1, 9.0), step(2), evaluation, step(3), step(3)], lines=[], log_offset=9
        )
        await jobs.end(claim, result)
        events = await jobs.events(added.id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [e.state for e in events if isinstance(e, StateEvent)] == ["queued", "preparing", "running", "succeeded"]
        assert [e.line for e in events if isinstance(e, LogEvent)] == ["하나", "nul \0"]
        assert [e.metrics for e in events if isinstance(e, MetricsEvent)] == [step(1), step(2), evaluation, step(3)]
        assert [e.sequence for e in await jobs.events(added.id, after=4)] == list(range(5, len(events) + 1))
        info = await jobs.registry.find(ACCOUNT, added.id)
        assert (info.step, info.result, info.soft_prompt) == (3, result, "mood@1")
        assert info.created_at <= info.started_at <= info.ended_at

    async def test_pages_metrics_by_kind(self, jobs: Jobs, request_of: RequestOf):
        added = await jobs.registry.add(request_of())
        claim = await jobs.started()
        evaluation = ValidationMetrics(step=3, loss=0.5, is_best=True)
        metrics = [*map(step, range(1, 6)), evaluation]
        await jobs.claims.record(claim, metrics=metrics, lines=["x"], log_offset=2)
        read, after, has_more = [], 0, True
        while has_more:
            request = JobMetricsRequest(account_id=ACCOUNT, job_id=added.id, kind="step", limit=2, after=after)
            page = await jobs.registry.metrics(request)
            read, after, has_more = read + page.data, page.last, page.has_more
        assert read == metrics[:-1]
        request = JobMetricsRequest(account_id=ACCOUNT, job_id=added.id, kind="validation")
        assert (await jobs.registry.metrics(request)).data == [evaluation]

    async def test_says_why_a_job_is_tried_again_and_why_it_failed(self, database: Database, request_of: RequestOf):
        jobs = Jobs(database, max_attempts=2)
        added = await jobs.registry.add(request_of())
        errors = [JobError(code="internal", message=f"Crash {number}.") for number in (1, 2)]
        for error in errors:
            await jobs.claims.apply(await jobs.started(), Event.BREAK, error=error)
        info = await jobs.registry.find(ACCOUNT, added.id)
        assert (info.state, info.attempt, info.error) == ("failed", 2, errors[1])
        assert [event.error for event in await jobs.events(added.id) if event.error] == errors


class TestAccounts:
    async def test_see_their_own_jobs_alone(self, jobs: Jobs, request_of: RequestOf):
        added = await jobs.registry.add(request_of())
        request = JobMetricsRequest(account_id="acct_2", job_id=added.id)
        for doing in (
            jobs.registry.find("acct_2", added.id),
            jobs.registry.cancel("acct_2", added.id),
            jobs.registry.metrics(request),
            jobs.registry.events("acct_2", added.id, after=0, limit=9),
        ):
            with pytest.raises(HunminError) as refusal:
                await doing
            assert refusal.value.code == ErrorCode.NOT_FOUND
        with pytest.raises(HunminError) as refusal:  # as for an id that nobody has
            await jobs.registry.page(ListJobsRequest(account_id="acct_2", after=added.id))
        assert refusal.value.code == ErrorCode.INVALID_PARAMETER
        assert (await jobs.registry.page(ListJobsRequest(account_id="acct_2"))).data == []

    async def test_list_their_jobs_in_pages_and_by_state(self, jobs: Jobs, request_of: RequestOf):
        added = [(await jobs.registry.add(request_of())).id for _ in range(5)]
        await jobs.registry.cancel(ACCOUNT, added[1])
        first = await jobs.registry.page(ListJobsRequest(account_id=ACCOUNT, limit=3))
        assert ([job.id for job in first.data], first.has_more) == (added[:1:-1], True)
        rest = await jobs.registry.page(ListJobsRequest(account_id=ACCOUNT, limit=3, after=first.data[-1].id))
        assert ([job.id for job in rest.data], rest.has_more) == (added[1::-1], False)
        cancelled = await jobs.registry.page(ListJobsRequest(account_id=ACCOUNT, state="cancelled"))
        assert [job.id for job in cancelled.data] == [added[1]]
