"""What a tuning task has made, called by the task's id in the CLOVA Studio dialect."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from hunmin_contracts import tuning_jobs
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, DatasetId, JobId, new_job_id
from hunmin_contracts.tuning_jobs import JobInfo
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tuning_doors import TEMPLATE
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import Running, running
from hunmin_kit.web import serve
from pydantic import Field

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 11, 28, tzinfo=UTC)
SAID = {"messages": [{"role": "user", "content": "가나"}], "maxTokens": 3, "seed": 7}
TEXT = {"text": "가나", "maxTokens": 3, "seed": 7}


class ServiceSettings(Settings):
    port: int = Field(default=0)


@dataclass
class Jobs:
    """The tuning service: jobs as the test says that they stand."""

    jobs: dict[str, JobInfo] = field(default_factory=dict)

    def job(self, account_id: AccountId, **stands: object) -> JobId:
        asked = tuning_jobs.CreateJobRequest(
            account_id=account_id, dataset_id=DatasetId("ds_1"), name="poet", model="team/parrot", template=TEMPLATE
        )
        made = {"attempt": 1, "is_cancel_wanted": False, "step": 0, "created_at": NOW, "started_at": NOW}
        unknown = dict.fromkeys(("ended_at", "queue", "error", "result", "soft_prompt"))
        info = JobInfo(**{"id": new_job_id(), "request": asked, **made, **unknown, **stands})
        self.jobs[info.id] = info
        return info.id

    def service(self) -> Service[ServiceSettings]:
        router = APIRouter()

        @serve(router, tuning_jobs.DESCRIBE)
        async def describe(request: tuning_jobs.JobRequest) -> JobInfo:
            info = self.jobs.get(request.job_id)
            if info is None or info.request.account_id != request.account_id:
                raise HunminError(ErrorCode.NOT_FOUND, f"There is no job {request.job_id!r}.")
            return info

        @asynccontextmanager
        async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
            app = platform.app(title="tuning")
            app.include_router(router)
            yield app

        return Service(name="tuning", settings=ServiceSettings, build=build)


@dataclass
class Studio:
    """A gateway, as a new account sees it."""

    account_id: AccountId
    jobs: Jobs
    http: httpx.AsyncClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(neighbours: list[Service]) -> AsyncIterator[tuple[Running, Jobs]]:
    jobs = Jobs()
    others = [service for service in neighbours if service.name != "tuning"]
    async with running(SERVICE, *others, jobs.service(), network=True) as gateway:
        yield gateway, jobs


@pytest_asyncio.fixture(loop_scope="module")
async def tuned(up: tuple[Running, Jobs], tls: ssl.SSLContext, parrot) -> AsyncIterator[Studio]:
    gateway, jobs = up
    parts = parts_of_app(gateway.app("gateway"))
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        key, _ = await ring.create(f"account {new_key()}", "test")
    account_id = (await authenticate(parts.database.quick, key, pepper=parts.pepper)).account_id
    parrot.requests.clear()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.url("gateway"), headers=headers, timeout=10, verify=tls) as http:
        yield Studio(account_id, jobs, http)


@pytest.mark.parametrize(
    ("path", "body", "usage"),
    [
        ("/testapp/v1/tasks/{}/chat-completions", SAID, "inputLength"),
        ("/v2/tasks/{}/chat-completions", SAID, "inputLength"),
        ("/serviceapp/v3/tasks/{}/chat-completions", SAID, "usage"),
        ("/v1/tasks/{}/completions", TEXT, "inputText"),
        ("/testapp/v2/tasks/{}/completions", TEXT, "inputText"),
    ],
)
async def test_is_the_soft_prompt_of_the_task(tuned, parrot, path, body, usage):
    task = tuned.jobs.job(tuned.account_id, state="succeeded", ended_at=NOW, soft_prompt="poet@1")
    response = await tuned.http.post(path.format(task), json=body)
    assert response.status_code == 200, response.text
    assert parrot.requests[-1].model == "poet@1"
    assert usage in response.json()["result"]
    (row,) = (await tuned.http.get("/studio/v1/usage")).json()["data"]
    assert (row["model"], row["status"]) == ("poet@1", "succeeded")


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        ({"state": "running"}, "is running, and has no model. Call it when it has succeeded."),
        ({"state": "running", "is_cancel_wanted": True}, "is being cancelled"),
        ({"state": "failed", "ended_at": NOW}, "is failed, and has no model. Call another."),
        ({"state": "cancelled", "ended_at": NOW, "is_cancel_wanted": True}, "is cancelled, and has no model."),
    ],
)
async def test_is_not_there_before_the_task_has_succeeded(tuned, parrot, stands, said):
    task = tuned.jobs.job(tuned.account_id, **stands)
    response = await tuned.http.post(f"/v1/tasks/{task}/chat-completions", json=SAID)
    status = response.json()["status"]
    assert (response.status_code, status["code"]) == (409, "40900")
    assert said in status["message"]
    assert parrot.requests == []


async def test_that_is_another_account_s_or_unknown_is_not_found(tuned):
    foreign = tuned.jobs.job(AccountId("acct_other"), state="succeeded", soft_prompt="poet@1")
    for task in (foreign, "job_" + "0" * 24, "x", "..%2Fx"):
        response = await tuned.http.post(f"/v1/tasks/{task}/chat-completions", json=SAID)
        assert (response.status_code, response.json()["status"]["code"]) == (404, "40400")


async def test_that_was_deleted_since_is_no_model(tuned):
    task = tuned.jobs.job(tuned.account_id, state="succeeded", ended_at=NOW, soft_prompt="poet@9")
    response = await tuned.http.post(f"/v1/tasks/{task}/chat-completions", json=SAID)
    assert (response.status_code, response.json()["status"]["code"]) == (400, "40080")
