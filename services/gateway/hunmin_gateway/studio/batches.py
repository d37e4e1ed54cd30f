"""Batches of the Studio dialect: a template over the rows of a table, and every batch of the caller's to follow."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import Form, Query, UploadFile
from hunmin_contracts.batches import BatchFault, BatchInfo, BatchPage
from hunmin_contracts.datasets import DESCRIBE, DatasetInfo, DatasetRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import BatchId, DatasetId, FileId
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_kit.data import SessionDep
from hunmin_kit.web import HEARTBEAT_S, EventStream
from pydantic import Field
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.batches.batch import MAX_LINES
from hunmin_gateway.batches.filling import CHAT, COMPLETIONS, Plan, Template
from hunmin_gateway.batches.states import Status
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.openai.batch_requests import OpenAIRequests
from hunmin_gateway.openai.files import cut, what_is_wrong
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.batch_rows import keep_requests, table
from hunmin_gateway.studio.datasets import keep_dataset
from hunmin_gateway.studio.router import PREFIX, studio_router
from hunmin_gateway.studio.uploads import CheckedForm
from hunmin_gateway.tables import Batch
from hunmin_gateway.tuning_doors import name_like

router = studio_router()

UPLOAD_PATH = f"{PREFIX}/batches"
_LOOK_S = 0.5  # between two looks at a batch that is followed
_HELLO = b"retry: 2000\n\n"  # ms, after which a browser comes back


class BatchForm(Schema):
    """What to ask of every row of a table."""

    file: UploadFile | None = Field(
        default=None, description="CSV, TSV, JSON Lines or Parquet, text in UTF-8 or CP949; it is kept as a dataset."
    )
    dataset: str | None = Field(default=None, description="In place of a file: `name@version`, `name`, or an id.")
    template: str = Field(min_length=1, max_length=100_000, description="The prompt, with `{column}`s.")
    model: str = Field(min_length=1, max_length=200)
    endpoint: Literal["/v1/completions", "/v1/chat/completions"] = COMPLETIONS
    system: str | None = Field(default=None, description="Of a chat: the message before the template's.")
    parameters: str = Field(default="{}", description="Others of the request, a JSON object: `max_tokens`, …")


class _Table(EventStream):
    media_type = "text/csv; charset=utf-8"


class BatchQuery(Schema):
    """Which batches to list."""

    limit: Annotated[int, Query(ge=1, le=200)] = 50
    cursor: str | None = None


@router.post(
    "/batches",
    status_code=201,
    summary="Run a template over a table",
    dependencies=[requires(Scope.GENERATE), CheckedForm],
)
async def create(
    form: Annotated[BatchForm, Form(media_type="multipart/form-data")], principal: PrincipalDep, parts: PartsDep
) -> BatchInfo:
    """Fill the template with each row, and make the requests as a batch, within 24 hours, at half of the tokens.

    What came of it is a table with the columns `completion` and `error`, at `/studio/v1/batches/{id}/results.csv`.
    """
    parameters = _parameters(form)
    dataset = await _dataset(form, principal, parts)
    template = Template.of(form.template, dataset.columns)
    plan = Plan(form.endpoint, form.model, template, form.system, parameters)
    requests = OpenAIRequests(parts)
    file = await keep_requests(plan, dataset, lambda body: requests.check(form.endpoint, body), principal, parts)
    async with parts.database.session() as session:
        batch = await Batches(session, parts.events).add(
            principal, endpoint=form.endpoint, input_file_id=file.id, attributes={}, dataset_id=dataset.id
        )
    return _info(batch)


@router.get("/batches", summary="List your batches", dependencies=[requires(Scope.READ)])
async def page(
    query: Annotated[BatchQuery, Query()], principal: PrincipalDep, session: SessionDep, parts: PartsDep
) -> BatchPage:
    """List your batches, newest first, whichever dialect they came by."""
    try:
        found, has_more = await Batches(session, parts.events).list(principal, limit=query.limit, after=query.cursor)
    except HunminError as error:
        raise HunminError(
            error.code,
            "Parameter cursor: not a cursor of this list. Send next_cursor of the page before, as it came.",
            param="cursor",
        ) from None
    return BatchPage(data=[_info(batch) for batch in found], next_cursor=found[-1].id if has_more else None)


@router.get("/batches/{batch_id}", summary="Describe a batch", dependencies=[requires(Scope.READ)])
async def describe(batch_id: str, principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> BatchInfo:
    """Say how a batch stands."""
    return _info(await Batches(session, parts.events).find(principal, batch_id))


@router.post("/batches/{batch_id}/cancel", summary="Cancel a batch", dependencies=[requires(Scope.GENERATE)])
async def cancel(batch_id: str, principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> BatchInfo:
    """Run no more of a batch; what is answered by then is kept. One that has ended is a 409."""
    return _info(await Batches(session, parts.events).cancel(principal, batch_id))


@router.get(
    "/batches/{batch_id}/results.csv",
    response_class=Response,
    responses={200: {"description": "Comma-separated values", "content": {"text/csv": {}}}},
    summary="Read a batch's table",
    dependencies=[requires(Scope.READ)],
)
async def results(batch_id: str, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Return the rows that filled a template, each with its `completion` or an `error`; a 409 until it has ended."""
    async with parts.database.session() as session:
        batch = await Batches(session, parts.events).find(principal, batch_id)
    if batch.dataset_id is None:
        raise HunminError(
            ErrorCode.NOT_FOUND, "The batch was made of a file of requests, and has no table. Read its output file."
        )
    if not Status(batch.status).is_final:
        raise HunminError(ErrorCode.CONFLICT, f"The batch is {batch.status}. Its table is there when it has ended.")
    dataset = await _described(batch.dataset_id, principal, parts)
    response = _Table(table(batch, dataset, principal, parts), on_error=cut)
    response.headers["Content-Disposition"] = f'attachment; filename="{batch.id}.csv"'
    return response


@router.get(
    "/batches/{batch_id}/events",
    response_class=Response,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
    summary="Follow a batch",
    dependencies=[requires(Scope.READ)],
)
async def events(batch_id: str, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Tell how the batch stands, and again whenever that has changed, until it ends: `state`."""
    async with parts.database.session() as session:
        await Batches(session, parts.events).find(principal, batch_id)  # there, or the answer is a 404 and no stream
    return EventStream(_frames(batch_id, principal, parts), heartbeat_s=HEARTBEAT_S)


async def _frames(batch_id: str, principal: Principal, parts: Parts) -> AsyncGenerator[bytes, None]:
    yield _HELLO
    told: BatchInfo | None = None
    while told is None or told.ended_at is None:
        async with parts.database.session() as session:
            info = _info(await Batches(session, parts.events).find(principal, batch_id))
        if info != told:
            told = info
            yield f"event: state\ndata: {info.model_dump_json()}\n\n".encode()
        else:
            await asyncio.sleep(_LOOK_S)


def _info(batch: Batch) -> BatchInfo:
    ends = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return BatchInfo(
        id=BatchId(batch.id),
        status=batch.status,
        endpoint=batch.endpoint,
        total=batch.total,
        completed=batch.completed,
        failed=batch.failed,
        errors=[BatchFault(**error) for error in batch.errors or []],
        dataset_id=None if batch.dataset_id is None else DatasetId(batch.dataset_id),
        input_file_id=FileId(batch.input_file_id),
        output_file_id=None if batch.output_file_id is None else FileId(batch.output_file_id),
        error_file_id=None if batch.error_file_id is None else FileId(batch.error_file_id),
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        ended_at=next((moment for moment in ends if moment is not None), None),
    )


def _parameters(form: BatchForm) -> dict[str, Any]:
    if form.system is not None and form.endpoint != CHAT:
        raise _refused("system", f"is a message of a chat. Send endpoint={CHAT} with it, or leave it out")
    try:
        parameters = json.loads(form.parameters)
        json.dumps(parameters, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise _refused("parameters", 'is no JSON object. Write for example {"max_tokens": 100}')
    for name in ("model", "prompt", "messages", "n"):
        if name in parameters:
            raise _refused("parameters", f"has {name}, which is not among those of a template. Leave it out")
    return parameters


async def _dataset(form: BatchForm, principal: Principal, parts: Parts) -> DatasetInfo:
    """Return the dataset whose rows are asked about; one that has errors is refused, with the lines."""
    if (form.file is None) == (form.dataset is None):
        raise _refused("file", "or `dataset` names the rows. Send one of them, and not both")
    if form.file is None:
        dataset = await _described(str(form.dataset), principal, parts)
    else:
        principal.require(Scope.DATA)
        name = name_like(PurePath(form.file.filename or "").stem) or "batch"
        dataset = await keep_dataset(form.file, name, principal, parts)
    where = "file" if form.dataset is None else "dataset"
    if (wrong := what_is_wrong(dataset.findings)) is not None:
        raise _refused(where, f"has errors. {wrong.rstrip('.')}")
    if dataset.rows > MAX_LINES:
        raise _refused(where, f"has {dataset.rows:,} rows, and a batch at most {MAX_LINES:,}. Divide it into several")
    return dataset


async def _described(reference: str, principal: Principal, parts: Parts) -> DatasetInfo:
    return await parts.tuning.call(DESCRIBE, DatasetRequest(account_id=principal.account_id, reference=reference))


def _refused(name: str, why: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {name} {why}.", param=name)
