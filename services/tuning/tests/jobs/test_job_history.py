"""What a job has told, read backwards; what it counts; what is only told again."""

from collections.abc import Callable

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.tuning import StepMetrics
from hunmin_contracts.tuning_jobs import CreateJobRequest, JobHistoryRequest
from hunmin_kit.data import Database
from hunmin_kit.testing.events import events_of
from hunmin_tuning.jobs.claims import Claims
from hunmin_tuning.jobs.registry import JobLimits, Registry
from hunmin_tuning.jobs.states import Event

RequestOf = Callable[..., CreateJobRequest]


def step(number: int) -> StepMetrics:
    return StepMetrics(
        step=number,
        total_steps=3,
        epoch=0,
        loss=1,
        learning_rate=0.1,
        gradient_norm=1,
        tokens=10 + number,
        duration_s=1,
    )


async def test_history_is_told_newest_first_in_pages(database: Database, request_of: RequestOf) -> None:
    events = events_of(database)
    registry, claims = Registry(database, JobLimits(), events), Claims(database, JobLimits(), events)
    asked = request_of("acct_1")
    made = await registry.add(asked.model_copy(update={"metadata": {"누가": "나"}}))
    assert (made.request.metadata, made.trained_tokens) == ({"누가": "나"}, None)
    claim = await claims.take()
    assert claim is not None
    await claims.apply(claim, Event.START)
    await claims.record(claim, metrics=[step(1), step(2)], lines=["끝"], log_offset=4)
    assert (await registry.find(made.request.account_id, made.id)).trained_tokens is None
    await claims.apply(claim, Event.FAIL)

    page = await registry.history(JobHistoryRequest(account_id=made.request.account_id, job_id=made.id, limit=5))
    assert ([event.root.sequence for event in page.data], page.has_more) == ([7, 6, 5, 4, 3], True)
    assert [event.root.type for event in page.data] == ["state", "log", "metrics", "metrics", "state"]
    before = page.data[-1].root.sequence
    rest = JobHistoryRequest(account_id=made.request.account_id, job_id=made.id, before=before)
    page = await registry.history(rest)
    assert ([event.root.sequence for event in page.data], page.has_more) == ([2, 1], False)
    assert (await registry.find(made.request.account_id, made.id)).trained_tokens == 23
    with pytest.raises(HunminError) as refusal:
        await registry.history(rest.model_copy(update={"account_id": AccountId("acct_2")}))
    assert refusal.value.code == ErrorCode.NOT_FOUND


async def test_a_job_that_was_cancelled_before_it_began_trained_nothing(
    database: Database, request_of: RequestOf
) -> None:
    registry = Registry(database, JobLimits(), events_of(database))
    made = await registry.add(request_of("acct_1"))
    assert (await registry.cancel(made.request.account_id, made.id)).trained_tokens == 0
