"""Tuning jobs at a time: let in exactly, by whatever gateway, and let in again when one ends, however it does."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from hunmin_contracts import datasets
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import JOB, JobChanged
from hunmin_contracts.ids import DatasetId, JobId
from hunmin_contracts.quotas import LimitName, Purpose
from hunmin_contracts.tenancy import Role
from hunmin_contracts.tuning_jobs import CREATE, CreateJobRequest, JobInfo, NewJobRequest
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import Parts, parts_of_app
from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.holdings import Holdings
from hunmin_gateway.quotas.jobs import RunningJobs
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.quotas.quotas import Quotas
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import Account
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_kit.web import serve
from hunmin_tuning.jobs import api
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.registry import JobLimits, Registry
from hunmin_tuning.jobs.states import Event
from sqlalchemy import select, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "team/parrot"
LIMITS = JobLimits(max_running_per_account=99, max_attempts=2, retry_delay_s=0.0)
TEMPLATE = {"prompt": "<|VIRTUAL_PROMPT_0|>{text}", "answer": "{label}"}
PLAN = {"dataset": "reviews", "name": "mood", "model": MODEL, "template": TEMPLATE}
SHORT_S = 0.05  # a lease that is over soon
WITHIN_S = 20


class TuningSettings(Settings):
    port: int = 0


@dataclass
class Tuning:
    """The jobs of the tuning service, and its queue's other end; every dataset is there. It refuses what it is told."""

    refusals: list[HunminError] = field(default_factory=list)
    claims: Claims | None = None

    def service(self) -> Service[TuningSettings]:
        async def check(_: CreateJobRequest) -> None:
            if self.refusals:
                raise self.refusals.pop()

        @asynccontextmanager
        async def build(platform: Platform, _: TuningSettings) -> AsyncGenerator[FastAPI, None]:
            app, events = platform.app(title="Tuning"), platform.events()
            router = api.routes(Registry(platform.database(), LIMITS, events), check)

            @serve(router, datasets.DESCRIBE)
            async def describe(request: datasets.DatasetRequest) -> datasets.DatasetInfo:
                return datasets.DatasetInfo(
                    id=DatasetId("ds_" + "0" * 24), name="reviews", version=1, format="jsonl", encoding="utf-8",
                    columns=["prompt", "completion"], rows=1, digest="", size_bytes=1, findings=[],
                    created_at=datetime.now(UTC),
                )  # fmt: skip

            app.include_router(router)
            self.claims = Claims(platform.database(), LIMITS, events)
            async with events.running():
                yield app

        return Service(name="tuning", settings=TuningSettings, build=build, migrations="hunmin_tuning.migrations")


@dataclass
class Studio:
    """An account, at two gateways on one database."""

    up: Running
    tuning: Tuning
    parts: Parts
    principal: Principal
    http: Sequence[httpx.AsyncClient]

    async def limit(self, value: int, **scope: str) -> None:
        async with self.parts.database.session() as session:
            name = await session.scalar(select(Account.name).where(Account.id == self.principal.account_id))
            await Limits(session).set(name, LimitName.RUNNING_JOBS, value, **scope)

    async def create(self, gateway: int = 0, **plan: str) -> httpx.Response:
        return await self.http[gateway].post("/studio/v1/tuning/jobs", json=PLAN | plan)

    async def running(self) -> int:
        """Return how many jobs hold a room."""
        (quota,) = (await self.http[0].get("/studio/v1/quotas")).json()["data"]
        assert quota["used"] == 0
        return quota["reserved"]

    async def until_running(self, jobs: int) -> None:
        deadline = time.monotonic() + WITHIN_S
        while (now := await self.running()) != jobs:
            assert time.monotonic() < deadline, now
            await asyncio.sleep(0.02)

    async def take(self, job_id: str) -> Claim:
        """Take the job as a runner does; those of tests before stay in their runners' hands."""
        while (claim := await self.tuning.claims.take()) is not None:
            if claim.job_id == job_id:
                return claim
        raise AssertionError(f"{job_id} is not in the queue")

    async def make(self, job_id: JobId) -> JobInfo:
        """Ask the tuning service for a job, as a gateway does."""
        plan = {key: value for key, value in PLAN.items() if key != "dataset"}
        asked = {"job_id": job_id, "account_id": self.principal.account_id, "dataset_id": "ds_1"} | plan
        return await self.parts.tuning.call(CREATE, NewJobRequest.model_validate(asked))

    def desk(self, *, lease_s: float = SHORT_S) -> tuple[Quotas, RunningJobs]:
        """Return another gateway's part in it, which keeps nothing by itself."""
        quotas = Quotas(self.parts.database, self.parts.generation, lease_s=lease_s)
        return quotas, RunningJobs(quotas, Holdings(self.parts.database))

    async def lease_is_over(self, quotas: Quotas) -> None:
        await asyncio.sleep(2 * SHORT_S)
        await quotas.sweep()

    async def is_told(self, job_id: str) -> None:
        """Wait until the gateways know of the job by its event."""
        query = text("SELECT expires_at = 'infinity' FROM quota_reservations WHERE usage_id = :job_id")
        deadline = time.monotonic() + WITHIN_S
        while True:
            async with self.parts.database.session() as session:
                if await session.scalar(query, {"job_id": job_id}):
                    return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(neighbours: list[Service]) -> AsyncIterator[tuple[Tuning, list[Running]]]:
    tuning = Tuning()
    async with fresh_database() as url:
        env = {"HUNMIN_DATABASE_URL": url, "HUNMIN_GATEWAY_KEY_PEPPER": "p" * 32}
        async with (
            running(SERVICE, *neighbours[:2], tuning.service(), env=env, network=True) as first,
            running(SERVICE, *neighbours[:2], tuning.service(), env=env, network=True) as second,
        ):
            yield tuning, [first, second]


@pytest_asyncio.fixture(loop_scope="module")
async def studio(gateways: tuple[Tuning, list[Running]]) -> AsyncIterator[Studio]:
    tuning, ups = gateways
    parts = parts_of_app(ups[0].app("gateway"))
    account = f"account {new_key()}"
    async with parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=parts.pepper).create(account, "test", role=Role.OWNER)
        await Limits(session).set(account, LimitName.RUNNING_JOBS, 1)
    principal = await authenticate(parts.database.quick, key, pepper=parts.pepper)
    headers = {"Authorization": f"Bearer {key}"}
    first, second = (httpx.AsyncClient(base_url=up.url("gateway"), headers=headers, timeout=30) for up in ups)
    async with first, second:
        yield Studio(ups[0], tuning, parts, principal, [first, second])


class TestRoom:
    async def test_is_refused_where_there_is_none_by_name(self, studio: Studio):
        assert (await studio.create()).status_code == 201
        refused = await studio.create()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        problem = refused.json()
        assert (problem["code"], problem["details"]["limit"]) == ("quota_exceeded", "running_jobs")
        assert "running_jobs is 1, and 1 are running" in problem["detail"]
        body = {"model": MODEL, "training_file": "file-" + "0" * 24}
        openai = await studio.http[1].post("/v1/fine_tuning/jobs", json=body)
        assert (openai.status_code, openai.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "running_jobs" in openai.json()["error"]["message"]

    async def test_is_for_the_last_job_once_of_two_gateways_that_race(self, studio: Studio):
        await studio.limit(3)
        answers = await asyncio.gather(*(studio.create(i % 2) for i in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 7
        assert await studio.running() == 3

    async def test_is_of_the_model_s_limit(self, studio: Studio):
        await studio.limit(9)
        await studio.limit(0, model="another", purpose=Purpose.TUNING)
        assert (await studio.create()).status_code == 201
        assert (await studio.create(model="another")).status_code == 429

    async def test_is_nothing_that_a_completion_takes(self, studio: Studio):
        await studio.limit(0)
        body = {"model": MODEL, "prompt": "가", "max_tokens": 1}
        assert (await studio.http[0].post("/v1/completions", json=body)).status_code == 200

    async def test_of_another_purpose_is_no_limit(self, studio: Studio):
        with pytest.raises(HunminError, match="counts tuning jobs"):
            await studio.limit(1, purpose=Purpose.COMPLETION)


class TestEnd:
    async def test_of_a_job_that_is_cancelled_lets_another_in(self, studio: Studio):
        job_id = (await studio.create()).json()["id"]
        assert (await studio.http[0].post(f"/studio/v1/tuning/jobs/{job_id}/cancel")).status_code == 200
        await studio.until_running(0)
        assert (await studio.create()).status_code == 201

    async def test_of_one_that_is_killed_until_it_fails_does(self, studio: Studio):
        job_id = (await studio.create()).json()["id"]
        for attempt in range(LIMITS.max_attempts):
            claim = await studio.take(job_id)
            assert (await studio.tuning.claims.apply(claim, Event.START)).attempt == attempt + 1
            assert await studio.running() == 1  # a job that goes back into the queue runs on
            standing = await studio.tuning.claims.apply(claim, Event.BREAK)
        assert standing.state == "failed"
        await studio.until_running(0)

    async def test_told_again_gives_back_nothing_twice(self, studio: Studio):
        await studio.limit(2)
        ended, _ = [(await studio.create()).json()["id"] for _ in range(2)]
        await studio.http[0].post(f"/studio/v1/tuning/jobs/{ended}/cancel")
        await studio.until_running(1)
        told = JobChanged(
            job_id=ended, account_id=studio.principal.account_id, model=MODEL, state="cancelled", is_ended=True,
            attempt=1, soft_prompt=None, error_code=None,
        )  # fmt: skip
        platform = studio.up.platform("tuning")
        async with platform.database().session() as session:
            for state in ("queued", "cancelled"):
                again = told.model_copy(update={"state": state, "is_ended": state == "cancelled"})
                await platform.events().tell(session, JOB, again, key=ended)
        last = (await studio.http[0].get("/studio/v1/tuning/jobs")).json()["data"][0]["id"]
        await studio.http[0].post(f"/studio/v1/tuning/jobs/{last}/cancel")
        await studio.until_running(0)  # and the table refuses what is below


class TestGateway:
    async def test_gives_back_at_once_what_tuning_refuses(self, studio: Studio):
        studio.tuning.refusals.append(HunminError(ErrorCode.INVALID_REQUEST, "Its rows are wrong."))
        assert (await studio.create()).status_code == 400
        assert await studio.running() == 0

    async def test_that_does_not_know_whether_the_job_is_there_leaves_it_to_the_lease(self, studio: Studio):
        quotas, jobs = studio.desk()

        async def make(_: JobId) -> JobInfo:
            raise HunminError(ErrorCode.UNAVAILABLE, "It broke off.")

        with pytest.raises(HunminError, match="It broke off"):
            await jobs.create(studio.principal, MODEL, make)
        assert await studio.running() == 1
        await studio.lease_is_over(quotas)
        assert await studio.running() == 0

    async def test_that_dies_before_the_job_is_there_takes_nothing_for_good(self, studio: Studio):
        quotas, jobs = studio.desk()

        async def make(_: JobId) -> JobInfo:
            raise asyncio.CancelledError

        with suppress(asyncio.CancelledError):
            await jobs.create(studio.principal, MODEL, make)
        assert (await studio.create()).status_code == 429
        await studio.lease_is_over(quotas)
        assert (await studio.create()).status_code == 201

    async def test_that_dies_when_it_is_there_leaves_it_to_the_job_s_events(self, studio: Studio):
        quotas, jobs = studio.desk(lease_s=WITHIN_S)
        made: list[JobId] = []

        async def make(job_id: JobId) -> JobInfo:
            made.append((await studio.make(job_id)).id)
            raise asyncio.CancelledError

        with suppress(asyncio.CancelledError):
            await jobs.create(studio.principal, MODEL, make)
        await studio.is_told(made[0])
        await quotas.sweep()
        assert await studio.running() == 1
        await studio.http[0].post(f"/studio/v1/tuning/jobs/{made[0]}/cancel")
        await studio.until_running(0)

    async def test_whose_lease_was_over_before_the_job_was_told_of_has_it_count_again(self, studio: Studio):
        quotas, jobs = studio.desk()
        made: list[JobId] = []

        async def make(job_id: JobId) -> JobInfo:
            made.append(job_id)
            raise asyncio.CancelledError

        with suppress(asyncio.CancelledError):
            await jobs.create(studio.principal, MODEL, make)
        await studio.lease_is_over(quotas)
        assert await studio.running() == 0
        await studio.make(made[0])  # its answer was long on its way
        await studio.until_running(1)
        await studio.http[0].post(f"/studio/v1/tuning/jobs/{made[0]}/cancel")
        await studio.until_running(0)

    async def test_holds_a_job_beyond_its_lease(self, studio: Studio):
        quotas, jobs = studio.desk()
        info = await jobs.create(studio.principal, MODEL, studio.make)
        await studio.lease_is_over(quotas)
        assert await studio.running() == 1
        await studio.http[0].post(f"/studio/v1/tuning/jobs/{info.id}/cancel")
        await studio.until_running(0)
