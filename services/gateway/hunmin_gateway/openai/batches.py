"""The routes of batches in the OpenAI dialect."""

from typing import Annotated

from fastapi import Query
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_kit.data import SessionDep

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.openai.batch import BatchObject, BatchPage, CreateBatch
from hunmin_gateway.openai.router import openai_router
from hunmin_gateway.parts import PartsDep

router = openai_router()


class BatchQuery(Schema):
    """Which batches to list: some, behind the one with the id `after`."""

    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=100)] = 20


@router.post("/batches", summary="Run a batch", dependencies=[requires(Scope.GENERATE)])
async def create(body: CreateBatch, principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> BatchObject:
    """Make every request of a file within 24 hours, at half of the tokens that quotas count otherwise.

    The file is validated first: with anything wrong in it the batch fails, and `errors` says what, in which lines.
    """
    batch = await Batches(session, parts.events).add(
        principal, endpoint=body.endpoint, input_file_id=body.input_file_id, attributes=body.metadata or {}
    )
    return BatchObject.of(batch)


@router.get("/batches", summary="List your batches", dependencies=[requires(Scope.READ)])
async def page(
    query: Annotated[BatchQuery, Query()], principal: PrincipalDep, session: SessionDep, parts: PartsDep
) -> BatchPage:
    """List the batches of your account, newest first."""
    batches = Batches(session, parts.events)
    found, has_more = await batches.list(principal, limit=query.limit, after=query.after)
    data = [BatchObject.of(batch) for batch in found]
    first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
    return BatchPage(data=data, first_id=first_id, last_id=last_id, has_more=has_more)


@router.get("/batches/{batch_id}", summary="Describe a batch", dependencies=[requires(Scope.READ)])
async def retrieve(batch_id: str, principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> BatchObject:
    """Say how a batch stands, and how many of its requests are answered."""
    return BatchObject.of(await Batches(session, parts.events).find(principal, batch_id))


@router.post("/batches/{batch_id}/cancel", summary="Cancel a batch", dependencies=[requires(Scope.GENERATE)])
async def cancel(batch_id: str, principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> BatchObject:
    """Run no more of a batch. Answers that are there by then are in its files; requests that run are cut."""
    return BatchObject.of(await Batches(session, parts.events).cancel(principal, batch_id))
