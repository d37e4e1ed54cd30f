"""Tuning jobs through the gateway: on the account of the key, by a dataset's name, with events that go on."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from hunmin_contracts import datasets
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, DatasetId, JobId
from hunmin_contracts.tuning_jobs import (
    CANCEL,
    CREATE,
    DESCRIBE,
    EVENTS,
    LIST,
    METRICS,
    CreateJobRequest,
    JobEvent,
    JobEventsRequest,
    JobInfo,
    JobMetricsPage,
    JobMetricsRequest,
    JobPage,
    JobRequest,
    ListJobsRequest,
    LogEvent,
)
from hunmin_contracts.tuning_preview import PREVIEW, Preview, PreviewRequest
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import running
from hunmin_kit.web import serve
from pydantic import Field

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = "/studio/v1/tuning/jobs"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
TEMPLATE = {"prompt": "{text}<|VIRTUAL_PROMPT_0|>", "answer": "{label}"}
BODY = {"name": "mood", "model": "starter", "dataset": "reviews@2", "template": TEMPLATE, "train_rows": 70}


class ServiceSettings(Settings):
    port: int = Field(default=0)


@dataclass
class Tuning:
    """One dataset of everyone, jobs by account, ten events of each, and what was asked last."""

    jobs: dict[str, JobInfo] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def job(self, account_id: AccountId, job_id: str) -> JobInfo:
        if (info := self.jobs.get(job_id)) is None or info.request.account_id != account_id:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no job {job_id!r}.")
        return info

    def router(self) -> APIRouter:
        router = APIRouter()

        @serve(router, datasets.DESCRIBE)
        async def dataset(request: datasets.DatasetRequest) -> datasets.DatasetInfo:
            if request.reference != "reviews@2":
                raise HunminError(ErrorCode.NOT_FOUND, f"There is no dataset {request.reference!r}.")
            return datasets.DatasetInfo(
                id=DatasetId("ds_2"), name="reviews", version=2, format="csv", encoding="utf-8", columns=[], rows=9,
                digest="", size_bytes=9, findings=[], created_at=NOW,
            )  # fmt: skip

        @serve(router, CREATE)
        async def create(request: CreateJobRequest) -> JobInfo:
            info = JobInfo(
                id=JobId(f"job_{len(self.jobs)}"), request=request, state="running", attempt=1, is_cancel_wanted=False,
                step=0, created_at=NOW, started_at=None, ended_at=None, queue=None, error=None, result=None,
                soft_prompt=None,
            )  # fmt: skip
            self.jobs[info.id] = info
            return info

        @serve(router, LIST)
        async def page(request: ListJobsRequest) -> JobPage:
            self.asked.append(request)
            own = [info for info in self.jobs.values() if info.request.account_id == request.account_id]
            return JobPage(data=own[:1], has_more=bool(own) and request.after is None)

        @serve(router, DESCRIBE)
        async def describe(request: JobRequest) -> JobInfo:
            return self.job(request.account_id, request.job_id)

        @serve(router, CANCEL)
        async def cancel(request: JobRequest) -> JobInfo:
            return self.job(request.account_id, request.job_id).model_copy(update={"is_cancel_wanted": True})

        self._offer_output(router)
        return router

    def _offer_output(self, router: APIRouter) -> None:
        @serve(router, METRICS)
        async def metrics(request: JobMetricsRequest) -> JobMetricsPage:
            self.asked.append(request)
            return JobMetricsPage(data=[], last=request.after, has_more=False)

        @serve(router, EVENTS)
        async def events(request: JobEventsRequest) -> AsyncGenerator[JobEvent, None]:
            for sequence in range(request.after + 1, 11):
                yield JobEvent(LogEvent(sequence=sequence, at=NOW, line=f"{sequence}\u2028"))

        @serve(router, PREVIEW)
        async def preview(request: PreviewRequest) -> Preview:
            self.asked.append(request)
            return Preview(served="", examples=[], context_length=1, rows=[])


def service(name: str, router: APIRouter) -> Service[ServiceSettings]:
    @asynccontextmanager
    async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
        app = platform.app(title=name)
        app.include_router(router)
        yield app

    return Service(name=name, settings=ServiceSettings, build=build)


@dataclass
class Studio:
    tuning: Tuning
    http: httpx.AsyncClient
    other: httpx.AsyncClient  # of another account


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio() -> AsyncIterator[Studio]:
    tuning = Tuning()
    neighbours = [
        service("tuning", tuning.router()),
        *(service(each, APIRouter()) for each in ("generation", "tokenizer")),
    ]
    async with running(SERVICE, *neighbours) as up:
        parts = parts_of_app(up.app("gateway"))
        clients = []
        for _ in range(2):
            async with parts.database.session() as session:
                key, _ = await KeyRing(session, pepper=parts.pepper).create(f"account {new_key()}", "test")
            http = up.http("gateway")
            http.headers["authorization"] = f"Bearer {key}"
            clients.append(http)
        yield Studio(tuning, *clients)


async def created(studio: Studio) -> dict:
    answer = await studio.http.post(JOBS, json=BODY)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_job_is_asked_for_by_a_datasets_name(studio):
    job = await created(studio)
    assert (job["request"]["dataset_id"], job["request"]["train_rows"], job["request"]["name"]) == ("ds_2", 70, "mood")
    assert (await studio.http.get(f"{JOBS}/{job['id']}")).json() == job
    assert (await studio.http.post(f"{JOBS}/{job['id']}/cancel")).json()["is_cancel_wanted"]
    page = (await studio.http.get(JOBS, params={"state": "running", "limit": 1})).json()
    assert (len(page["data"]), page["next_cursor"]) == (1, page["data"][0]["id"])
    rest = (await studio.http.get(JOBS, params={"cursor": page["next_cursor"]})).json()
    assert (rest["next_cursor"], studio.tuning.asked[-1].after) == (None, page["next_cursor"])
    await studio.http.get(f"{JOBS}/{job['id']}/metrics", params={"kind": "step", "after": 7, "limit": 5})
    asked = studio.tuning.asked[-1]
    assert (asked.kind, asked.after, asked.limit) == ("step", 7, 5)


async def test_what_is_not_ones_own_is_not_there(studio):
    path = f"{JOBS}/{(await created(studio))['id']}"
    for call in (studio.other.get(path), studio.other.post(f"{path}/cancel"), studio.other.get(f"{path}/events")):
        assert (await call).status_code == 404
    assert (await studio.other.get(JOBS)).json()["data"] == []


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"dataset": "nothing"}, 404, None),
        ({"name": "Mood"}, 400, "name"),
        ({"hyperparameters": {"slots": [600, 600]}}, 400, "hyperparameters.slots"),
        ({"hyperparameters": {"rate": 1}}, 400, "hyperparameters.rate"),
        ({"train_rows": 10**20}, 400, "train_rows"),
        ({"account_id": "acct_1"}, 400, "account_id"),
    ],
)
async def test_a_body_that_is_wrong_is_refused(studio, change, status, param):
    answer = await studio.http.post(JOBS, json=BODY | change)
    assert (answer.status_code, answer.json()["details"].get("param")) == (status, param)


async def test_events_go_on_where_a_reader_was_cut_off(studio):
    path = f"{JOBS}/{(await created(studio))['id']}/events"
    for asked, first in (
        ({}, 1),
        ({"headers": {"last-event-id": "4"}}, 5),
        ({"params": {"after": 8}, "headers": {"last-event-id": "4"}}, 9),
        ({"params": {"after": 0}, "headers": {"last-event-id": "4"}}, 1),
        ({"params": {"after": 10}}, 11),
    ):
        answer = await studio.http.get(path, **asked)
        assert answer.headers["content-type"].startswith("text/event-stream")
        hello, *frames, end = answer.text.split("\n\n")
        assert (hello, end) == ("retry: 2000", "")
        assert [frame.split("\n")[:2] for frame in frames] == [
            ["event: log", f"id: {number}"] for number in range(first, 11)
        ]
        told = [json.loads(frame.split("\n")[2].removeprefix("data: ")) for frame in frames]
        assert [event["line"] for event in told] == [f"{number}\u2028" for number in range(first, 11)]
    for number in (-1, 2**63, 10**20):
        for asked in ({"params": {"after": number}}, {"headers": {"last-event-id": str(number)}}):
            assert (await studio.http.get(path, **asked)).status_code == 400, (number, asked)
        metrics = await studio.http.get(path.replace("events", "metrics"), params={"after": number})
        assert metrics.status_code == 400, number


async def test_a_preview_is_passed_on(studio):
    path = "/studio/v1/tuning/preview"
    answer = await studio.http.post(path, json={"template": TEMPLATE, "rows": [{"text": "가", "label": "나"}]})
    assert answer.status_code == 200, answer.text
    assert studio.tuning.asked[-1].rows == [{"text": "가", "label": "나"}]
    assert (await studio.http.post(path, json={"template": TEMPLATE})).status_code == 400
