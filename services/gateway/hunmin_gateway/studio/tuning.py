"""Tuning jobs of the Studio dialect. The tuning service checks and runs them; here they get a caller and a stream."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Header, Query
from hunmin_contracts import datasets
from hunmin_contracts.ids import JobId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.tuning_jobs import (
    CANCEL,
    CREATE,
    DESCRIBE,
    EVENTS,
    LIST,
    METRICS,
    JobEvent,
    JobEventsRequest,
    JobInfo,
    JobMetricsPage,
    JobMetricsRequest,
    JobPlan,
    JobRequest,
    JobState,
    ListJobsRequest,
    NewJobRequest,
)
from hunmin_contracts.tuning_preview import PREVIEW, Preview, PreviewQuestion, PreviewRequest
from hunmin_kit.web import HEARTBEAT_S, Client, EventStream
from pydantic import Field
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.router import studio_router

router = studio_router()

_HELLO = b"retry: 2000\n\n"  # ms, after which a browser comes back


class CreateJobBody(JobPlan):
    """What to learn, from which dataset: `name@version`, `name` for its newest version, or an id."""

    dataset: str


class JobPage(Page[JobInfo]):
    """Jobs, newest first."""


class JobQuery(Schema):
    """Which jobs to list."""

    state: JobState | None = None
    limit: Annotated[int, Query(ge=1, le=200)] = 50
    cursor: str | None = None


class MetricsQuery(Schema):
    """Which metrics to read: of steps, of validations, or both, behind the `last` of the page before."""

    kind: Annotated[str | None, Query(pattern="^(step|validation)$")] = None
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0


class EventsQuery(Schema):
    """Behind which event to go on."""

    after: int | None = Field(default=None, ge=0, lt=2**63)


@router.post("/tuning/jobs", status_code=201, summary="Tune a soft prompt", dependencies=[requires(Scope.TUNE)])
async def create(body: CreateJobBody, principal: PrincipalDep, parts: PartsDep) -> JobInfo:
    """Put a job into the queue, if the dataset's report passes for it; else the answer says what is wrong with it.

    Its soft prompt is served as `name@version` as soon as the job has succeeded.
    """
    return await create_job(body, principal, parts)


@router.get("/tuning/jobs", summary="List your tuning jobs", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[JobQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> JobPage:
    """List the jobs of your account, newest first."""
    after = None if query.cursor is None else JobId(query.cursor)
    request = ListJobsRequest(account_id=principal.account_id, state=query.state, limit=query.limit, after=after)
    found = await parts.tuning.call(LIST, request)
    return JobPage(data=found.data, next_cursor=found.data[-1].id if found.has_more else None)


@router.get("/tuning/jobs/{job_id}", summary="Describe a tuning job", dependencies=[requires(Scope.READ)])
async def describe(job_id: str, principal: PrincipalDep, parts: PartsDep) -> JobInfo:
    """Say how a job stands: its place in the queue, its step, what became of it."""
    return await parts.tuning.call(DESCRIBE, _named(job_id, principal))


@router.post("/tuning/jobs/{job_id}/cancel", summary="Cancel a tuning job", dependencies=[requires(Scope.TUNE)])
async def cancel(job_id: str, principal: PrincipalDep, parts: PartsDep) -> JobInfo:
    """Cancel a job; one that has a process by now ends as soon as that is gone. One that has ended is a 409."""
    return await parts.tuning.call(CANCEL, _named(job_id, principal))


@router.get("/tuning/jobs/{job_id}/metrics", summary="Read a tuning job's metrics", dependencies=[requires(Scope.READ)])
async def metrics(
    job_id: str, query: Annotated[MetricsQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> JobMetricsPage:
    """Read what the job told of its steps and validations, in order, each once."""
    asked = {"kind": query.kind, "limit": query.limit, "after": query.after}
    request = JobMetricsRequest.model_validate({"account_id": principal.account_id, "job_id": job_id, **asked})
    return await parts.tuning.call(METRICS, request)


@router.get(
    "/tuning/jobs/{job_id}/events",
    response_class=Response,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
    summary="Follow a tuning job",
    dependencies=[requires(Scope.READ)],
)
async def events(
    job_id: str,
    query: Annotated[EventsQuery, Query()],
    principal: PrincipalDep,
    parts: PartsDep,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
) -> Response:
    """Tell everything that the job has told and tells until it ends: `state`, `metrics`, `log`.

    An event's `id` is its number; whoever was cut off goes on behind it, by `Last-Event-ID` or `after`.
    """
    await parts.tuning.call(DESCRIBE, _named(job_id, principal))  # there, or the answer is a 404 and no stream
    after = query.after if query.after is not None else last_event_id or 0
    request = JobEventsRequest(account_id=principal.account_id, job_id=JobId(job_id), after=after)
    return EventStream(_frames(parts.tuning, request), heartbeat_s=HEARTBEAT_S)


@router.post("/tuning/preview", summary="Preview a template", dependencies=[requires(Scope.READ)])
async def preview(body: PreviewQuestion, principal: PrincipalDep, parts: PartsDep) -> Preview:
    """Show rows as a job with this template would ask them: text, tokens, slots, the examples before them."""
    asked = {field: getattr(body, field) for field in PreviewQuestion.model_fields}
    return await parts.tuning.call(PREVIEW, PreviewRequest(account_id=principal.account_id, **asked))


async def create_job(body: CreateJobBody, principal: Principal, parts: Parts) -> JobInfo:
    """Ask for a job of the caller's account, for whatever dialect."""
    wanted = datasets.DatasetRequest(account_id=principal.account_id, reference=body.dataset)
    dataset = await parts.tuning.call(datasets.DESCRIBE, wanted)
    plan = {field: getattr(body, field) for field in JobPlan.model_fields}

    async def make(job_id: JobId) -> JobInfo:
        request = NewJobRequest(job_id=job_id, account_id=principal.account_id, dataset_id=dataset.id, **plan)
        return await parts.tuning.call(CREATE, request)

    return await parts.jobs.create(principal, body.model, make)


async def _frames(tuning: Client, request: JobEventsRequest) -> AsyncGenerator[bytes, None]:
    yield _HELLO
    async with tuning.stream(EVENTS, request) as events:
        async for event in events:
            yield _frame(event)


def _frame(event: JobEvent) -> bytes:
    told = event.root
    return f"event: {told.type}\nid: {told.sequence}\ndata: {event.model_dump_json()}\n\n".encode()


def _named(job_id: str, principal: Principal) -> JobRequest:
    return JobRequest(account_id=principal.account_id, job_id=JobId(job_id))
