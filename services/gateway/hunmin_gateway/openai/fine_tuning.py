"""Fine-tuning jobs of the OpenAI dialect: jobs of the tuning service, which end as models, soft prompts by name."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from hunmin_contracts import datasets
from hunmin_contracts.datasets import COMPLETION, PROMPT, DatasetInfo
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.tuning_jobs import (
    CANCEL,
    DESCRIBE,
    HISTORY,
    LIST,
    JobHistoryRequest,
    JobRequest,
    ListJobsRequest,
)
from pydantic import BaseModel

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.openai.files import dataset_id_of, what_is_wrong
from hunmin_gateway.openai.fine_tuning_job import (
    Checkpoint,
    CreateJob,
    FineTuningEvent,
    FineTuningJob,
    checkpoint_of,
    job_id_of,
    sequence_of,
)
from hunmin_gateway.openai.router import openai_router
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.tuning import CreateJobBody, create_job
from hunmin_gateway.tuning_doors import TEMPLATE

router = openai_router()

ItemT = TypeVar("ItemT")


class ListPage(BaseModel, Generic[ItemT]):
    """Some of a list. `has_more`: others follow."""

    object: str = "list"
    data: list[ItemT]
    has_more: bool


class PageQuery(Schema):
    """Where to go on, and how far."""

    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=200)] = 20


@router.post("/fine_tuning/jobs", summary="Tune a model", dependencies=[requires(Scope.TUNE)])
async def create(body: CreateJob, principal: PrincipalDep, parts: PartsDep) -> FineTuningJob:
    """Learn a soft prompt from a file, if all its lines are right; the answer says which are not.

    Of the rows eight tenths train, one validates and one tests. `fine_tuned_model` can be called as soon as the job
    has succeeded, by completions with the prompt alone, and by chat where the lines were conversations.
    """
    dataset = await _training_data(body.training_file, principal, parts)
    plan = CreateJobBody(
        dataset=dataset.id,
        name=body.name(dataset),
        model=body.model,
        template=TEMPLATE,
        hyperparameters=body.chosen(dataset.rows),
        metadata=body.metadata or {},
    )
    try:
        return FineTuningJob.of(await create_job(plan, principal, parts))
    except HunminError as error:
        raise _in_this_dialect(error) from None


@router.get("/fine_tuning/jobs", summary="List your fine-tuning jobs", dependencies=[requires(Scope.READ)])
async def page(
    query: Annotated[PageQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> ListPage[FineTuningJob]:
    """List the jobs of your account, newest first, whichever dialect they came by."""
    after = None if query.after is None else _last_of_page(query.after)
    request = ListJobsRequest(account_id=principal.account_id, limit=query.limit, after=after)
    found = await parts.tuning.call(LIST, request)
    return ListPage(data=[FineTuningJob.of(info) for info in found.data], has_more=found.has_more)


@router.get("/fine_tuning/jobs/{job_id}", summary="Describe a fine-tuning job", dependencies=[requires(Scope.READ)])
async def retrieve(job_id: str, principal: PrincipalDep, parts: PartsDep) -> FineTuningJob:
    """Say how a job stands."""
    return FineTuningJob.of(await parts.tuning.call(DESCRIBE, _named(job_id, principal)))


@router.post(
    "/fine_tuning/jobs/{job_id}/cancel", summary="Cancel a fine-tuning job", dependencies=[requires(Scope.TUNE)]
)
async def cancel(job_id: str, principal: PrincipalDep, parts: PartsDep) -> FineTuningJob:
    """Cancel a job that has not ended; it leaves no model."""
    return FineTuningJob.of(await parts.tuning.call(CANCEL, _named(job_id, principal)))


@router.post("/fine_tuning/jobs/{job_id}/pause", summary="Not offered", dependencies=[requires(Scope.TUNE)])
@router.post("/fine_tuning/jobs/{job_id}/resume", summary="Not offered", dependencies=[requires(Scope.TUNE)])
async def refuse_to_pause(job_id: str, principal: PrincipalDep, parts: PartsDep) -> FineTuningJob:
    """Refuse: a job runs to its end, or is cancelled. One that a crash interrupts is resumed by itself."""
    await parts.tuning.call(DESCRIBE, _named(job_id, principal))
    raise HunminError(
        ErrorCode.INVALID_REQUEST, "Jobs are not paused or resumed here. Cancel it, and ask for another later."
    )


@router.get(
    "/fine_tuning/jobs/{job_id}/events",
    summary="List what a fine-tuning job has told",
    dependencies=[requires(Scope.READ)],
)
async def events(
    job_id: str, query: Annotated[PageQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> ListPage[FineTuningEvent]:
    """List states, metrics and lines of the log, newest first."""
    own_id = job_id_of(job_id)
    before = None if query.after is None else sequence_of(query.after, own_id)
    request = JobHistoryRequest(account_id=principal.account_id, job_id=own_id, limit=query.limit, before=before)
    found = await parts.tuning.call(HISTORY, request)
    return ListPage(data=[FineTuningEvent.of(own_id, event) for event in found.data], has_more=found.has_more)


@router.get(
    "/fine_tuning/jobs/{job_id}/checkpoints",
    summary="List what a fine-tuning job has kept",
    dependencies=[requires(Scope.READ)],
)
async def checkpoints(
    job_id: str, query: Annotated[PageQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> ListPage[Checkpoint]:
    """List the states of the soft prompt that can be called: of a job that has succeeded, that of its best step."""
    kept = checkpoint_of(await parts.tuning.call(DESCRIBE, _named(job_id, principal)))
    data = [] if kept is None or query.after == kept.id else [kept]
    return ListPage(data=data, has_more=False)


async def _training_data(file_id: str, principal: Principal, parts: Parts) -> DatasetInfo:
    try:
        wanted = datasets.DatasetRequest(account_id=principal.account_id, reference=dataset_id_of(file_id))
        dataset = await parts.tuning.call(datasets.DESCRIBE, wanted)
    except HunminError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        raise _refused(f"there is no file {file_id[:60]!r} in this account. Upload it, and send its id.") from None
    if (wrong := what_is_wrong(dataset.findings)) is not None:
        raise _refused(f"the file has errors. {wrong}")
    if missing := [column for column in (PROMPT, COMPLETION) if column not in dataset.columns]:
        wanted_lines = '{"messages": […]} or {"prompt": "…", "completion": "…"}'
        raise _refused(f"its lines have no {missing[0]}. Each is to be {wanted_lines}.")
    return dataset


def _refused(what: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter training_file: {what}", param="training_file")


def _in_this_dialect(error: HunminError) -> HunminError:
    """Name the parameter at fault as this dialect does: what is neither the model's nor the name's is the file's."""
    param = str(error.details.get("param"))
    if error.status >= 500 or error.code is ErrorCode.OVERLOADED or param.startswith(("model", "hyperparameters")):
        return error
    here = "suffix" if param == "name" else "training_file"
    return HunminError(error.code, error.message, **{**error.details, "param": here})


def _last_of_page(job_id: str) -> JobId:
    try:
        return job_id_of(job_id)
    except HunminError:
        message = f"Parameter after: there is no job {job_id[:60]!r}. Send the last id of the page before."
        raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="after") from None


def _named(job_id: str, principal: Principal) -> JobRequest:
    return JobRequest(account_id=principal.account_id, job_id=job_id_of(job_id))
