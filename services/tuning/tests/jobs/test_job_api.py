"""Jobs over the service's HTTP: made, watched, cancelled; a reader that left goes on where it was."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import StepMetrics, TuningResult, ValidationMetrics
from hunmin_contracts.tuning_jobs import (
    CANCEL,
    CREATE,
    DESCRIBE,
    EVENTS,
    LIST,
    METRICS,
    CreateJobRequest,
    JobEventsRequest,
    JobInfo,
    JobMetricsRequest,
    JobRequest,
    ListJobsRequest,
    StateEvent,
)
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import running
from hunmin_kit.web import Client
from hunmin_tuning.jobs import api
from hunmin_tuning.jobs.claims import Claims
from hunmin_tuning.jobs.registry import JobLimits, Registry
from hunmin_tuning.jobs.states import Event
from pydantic import ValidationError

ACCOUNT = "acct_1"
RequestOf = Callable[..., CreateJobRequest]


class JobsSettings(Settings):
    port: int = 8083


@dataclass
class Studio:
    """The jobs part of the service, its client, and the other end of the queue."""

    client: Client
    claims: Claims
    refusals: list[HunminError] = field(default_factory=list)  # what the check says, the next first

    async def create(self, request: CreateJobRequest) -> JobInfo:
        return await self.client.call(CREATE, request)

    async def follow(self, job_id: str, after: int = 0, until: int | None = None) -> list:
        request = JobEventsRequest(account_id=ACCOUNT, job_id=job_id, after=after)
        seen = []
        async with self.client.stream(EVENTS, request) as events:
            async for event in events:
                seen.append(event.root)
                if event.root.sequence == until:
                    break
        return seen


@asynccontextmanager
async def running_studio(check_s: float = 0, **env: str) -> AsyncIterator[Studio]:
    refusals: list[HunminError] = []
    limits = JobLimits()
    made: list[Claims] = []

    async def check(request: CreateJobRequest) -> None:
        await asyncio.sleep(check_s)
        if refusals:
            raise refusals.pop()

    @asynccontextmanager
    async def build(platform: Platform, settings: JobsSettings) -> AsyncGenerator[FastAPI, None]:
        app = platform.app(title="Jobs")
        app.include_router(api.routes(Registry(platform.database(), limits, platform.events()), check, poll_s=0.02))
        made.append(Claims(platform.database(), limits, platform.events()))
        yield app

    service = Service(name="tuning", settings=JobsSettings, build=build, migrations="hunmin_tuning.migrations")
    async with running(service, env=env) as up:
        yield Studio(up.client("tuning"), made[0], refusals)


@pytest.fixture
async def studio() -> AsyncIterator[Studio]:
    async with running_studio() as studio:
        yield studio


def step(number: int) -> StepMetrics:
    return StepMetrics(
        step=number, total_steps=99, epoch=0, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens=9, duration_s=0.1
    )


async def test_job_is_made_described_listed_and_cancelled(studio: Studio, request_of: RequestOf):
    made = await studio.create(request_of())
    assert (made.state, made.attempt, made.queue.position) == ("queued", 1, 1)
    one = JobRequest(account_id=ACCOUNT, job_id=made.id)
    assert await studio.client.call(DESCRIBE, one) == made
    listed = await studio.client.call(LIST, ListJobsRequest(account_id=ACCOUNT, state="queued"))
    assert listed.data == [made]
    assert (await studio.client.call(CANCEL, one)).state == "cancelled"
    assert (await studio.client.call(LIST, ListJobsRequest(account_id=ACCOUNT, state="queued"))).data == []


async def test_no_page_begins_behind_a_job_that_the_account_does_not_have(studio: Studio, request_of: RequestOf):
    foreign = await studio.create(request_of("acct_2"))
    for after in (foreign.id, "job_nothing"):
        with pytest.raises(HunminError) as caught:
            await studio.client.call(LIST, ListJobsRequest(account_id=ACCOUNT, after=after))
        assert (caught.value.code, caught.value.details["param"]) == (ErrorCode.INVALID_PARAMETER, "after")


async def test_job_that_the_check_refuses_is_not_made(studio: Studio, request_of: RequestOf):
    studio.refusals.append(HunminError(ErrorCode.INVALID_PARAMETER, "The dataset did not pass.", param="dataset_id"))
    with pytest.raises(HunminError, match="did not pass") as refusal:
        await studio.create(request_of())
    assert refusal.value.details == {"param": "dataset_id"}
    assert (await studio.client.call(LIST, ListJobsRequest(account_id=ACCOUNT))).data == []


async def test_the_check_may_take_longer_than_other_calls(request_of: RequestOf):
    async with running_studio(check_s=0.2, HUNMIN_CALL_DEADLINE_S="0.1") as studio:
        assert (await studio.create(request_of())).state == "queued"


async def test_numbers_of_events_are_bounded(studio: Studio, request_of: RequestOf):
    made = await studio.create(request_of())
    await studio.client.call(CANCEL, JobRequest(account_id=ACCOUNT, job_id=made.id))
    assert await studio.follow(made.id, after=2**63 - 1) == []
    for kind in (JobEventsRequest, JobMetricsRequest):
        with pytest.raises(ValidationError, match="less than"):
            kind(account_id=ACCOUNT, job_id=made.id, after=2**63)


async def test_events_come_as_they_happen_and_end_with_the_job(
    studio: Studio, request_of: RequestOf, result: TuningResult
):
    made = await studio.create(request_of())
    reader = asyncio.create_task(studio.follow(made.id))
    first_part = asyncio.create_task(studio.follow(made.id, until=4))
    claim = await studio.claims.take()
    await studio.claims.apply(claim, Event.START)
    evaluation = ValidationMetrics(step=2, loss=0.5, is_best=True)
    await studio.claims.record(claim, metrics=[step(1), step(2), evaluation], lines=["시작"], log_offset=7)
    head = await first_part
    assert not reader.done()
    await studio.claims.apply(claim, Event.PUBLISH)
    await studio.claims.succeed(claim, result, "mood@1")
    events = await reader
    assert [event.sequence for event in events] == list(range(1, 9))
    assert [event.type for event in events] == ["state"] * 3 + ["metrics"] * 3 + ["log", "state"]
    assert isinstance(events[-1], StateEvent)
    assert events[-1].state == "succeeded"
    assert head + await studio.follow(made.id, after=4) == events
    assert await studio.follow(made.id, after=8) == []
    page = await studio.client.call(METRICS, JobMetricsRequest(account_id=ACCOUNT, job_id=made.id, limit=2))
    assert (page.data, page.has_more) == ([step(1), step(2)], True)


async def test_more_events_than_are_read_at_a_time_all_come(studio: Studio, request_of: RequestOf):
    made = await studio.create(request_of())
    claim = await studio.claims.take()
    await studio.claims.record(claim, metrics=[], lines=[f"{n}" for n in range(1098)], log_offset=1)
    await studio.claims.apply(claim, Event.FAIL)
    events = await studio.follow(made.id)
    assert [event.line for event in events if event.type == "log"] == [f"{n}" for n in range(1098)]
    assert events[-1].state == "failed"


async def test_events_of_another_s_job_are_not_found(studio: Studio, request_of: RequestOf):
    made = await studio.create(request_of("acct_2"))
    with pytest.raises(HunminError) as refusal:
        await studio.follow(made.id)
    assert refusal.value.code == ErrorCode.NOT_FOUND
