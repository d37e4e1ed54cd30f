"""The endpoints of `hunmin_contracts.tuning_jobs`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import APIRouter
from hunmin_contracts.tuning_jobs import (
    CANCEL,
    CREATE,
    DESCRIBE,
    EVENTS,
    HISTORY,
    LIST,
    METRICS,
    CreateJobRequest,
    JobEvent,
    JobEventsRequest,
    JobHistory,
    JobHistoryRequest,
    JobInfo,
    JobMetricsPage,
    JobMetricsRequest,
    JobPage,
    JobRequest,
    ListJobsRequest,
    NewJobRequest,
)
from hunmin_kit.web import serve

from hunmin_tuning.jobs.registry import Registry

_EVENTS_AT_A_TIME = 500


def routes(
    registry: Registry, check: Callable[[CreateJobRequest], Awaitable[None]], *, poll_s: float = 0.5
) -> APIRouter:
    """Mount every endpoint on these jobs. `check` raises what is wrong with a job before it is put into the queue."""
    router = APIRouter()

    @serve(router, CREATE)
    async def create(request: NewJobRequest) -> JobInfo:
        await check(request.job)
        return await registry.add(request.job, job_id=request.job_id)

    @serve(router, LIST)
    async def list_page(request: ListJobsRequest) -> JobPage:
        return await registry.page(request)

    @serve(router, DESCRIBE)
    async def describe(request: JobRequest) -> JobInfo:
        return await registry.find(request.account_id, request.job_id)

    @serve(router, CANCEL)
    async def cancel(request: JobRequest) -> JobInfo:
        return await registry.cancel(request.account_id, request.job_id)

    @serve(router, METRICS)
    async def metrics(request: JobMetricsRequest) -> JobMetricsPage:
        return await registry.metrics(request)

    @serve(router, HISTORY)
    async def history(request: JobHistoryRequest) -> JobHistory:
        return await registry.history(request)

    @serve(router, EVENTS)
    async def events(request: JobEventsRequest) -> AsyncGenerator[JobEvent, None]:
        after, is_all = request.after, False
        while not is_all:
            page, is_all = await registry.events(
                request.account_id, request.job_id, after=after, limit=_EVENTS_AT_A_TIME
            )
            for event in page:
                after = event.root.sequence
                yield event
            if not is_all and len(page) < _EVENTS_AT_A_TIME:
                await asyncio.sleep(poll_s)

    return router
