"""CLOVA Studio's tuning API, a second door to the same jobs: a task is a job, and its training data a dataset here.

What NAVER's public documentation leaves open is decided in docs/openai-fine-tuning.md, section CLOVA Studio.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from hunmin_contracts import datasets, soft_prompts
from hunmin_contracts.datasets import COMPLETION, PROMPT, DatasetInfo, Shares
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.tuning import Hyperparameters
from hunmin_contracts.tuning_jobs import CANCEL, DESCRIBE, LIST, JobInfo, JobRequest, ListJobsRequest
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.clova.envelope import Camel, Envelope
from hunmin_gateway.clova.router import clova_router
from hunmin_gateway.listing import read_all
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.public_schema import NAME, PublicSchema, only, said
from hunmin_gateway.studio.tuning import CreateJobBody, create_job
from hunmin_gateway.tuning_doors import TEMPLATE, name_like

router = clova_router("/tuning/v2")

Status = Literal["WAIT", "RUNNING", "SUCCEEDED", "FAILED"]
_STATES: dict[str, Status] = {
    "queued": "WAIT",
    "preparing": "WAIT",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "FAILED",
}
_CLOVA_COLUMNS = {PROMPT: "Text", COMPLETION: "Completion"}
_TASK_NAME = "taskName"  # in a job's metadata
_DAY = "%Y%m%d-%H%M%S"


def _number(value: object) -> object:
    """Numbers come as such, or as text, also in Java's spelling, `1e-5f`."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value.removesuffix("f"))
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


Ignored = Annotated[Any, Field(description="Accepted, without effect.")]


class CreateTask(PublicSchema):
    """The body of `POST /tuning/v2/tasks`."""

    model_config = ConfigDict(alias_generator=to_camel)

    name: str | None = Field(default=None, min_length=1, max_length=100, pattern=NAME)
    model: str = Field(min_length=1, max_length=200, pattern=NAME, description="A base model of `GET /v1/models`.")
    training_dataset_file_path: str = Field(
        min_length=1, max_length=200, description="A dataset: `name@version`, `name` for its newest version, or an id."
    )
    tuning_type: Annotated[Literal["PEFT"] | None, said('"PEFT"')] = None
    task_type: Annotated[
        Literal["GENERATION"] | None, said('"GENERATION": the labels of a classification are learned as text')
    ] = None
    # Bounds stand before what makes numbers of texts, or the OpenAPI file does not have them.
    train_epochs: Annotated[int, Field(ge=1, le=20), BeforeValidator(_number)] = 8
    learning_rate: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        BeforeValidator(_number),
        said("a number over 0, at most 1, or a text of one"),
    ] = None
    validation_split_ratio: Annotated[float, Field(ge=0, le=0.1), BeforeValidator(_number)] = 0.0
    lora_r: Annotated[None, only()] = None
    lora_alpha: Annotated[None, only()] = None
    training_dataset_bucket: Ignored = None
    training_dataset_access_key: Ignored = None
    training_dataset_secret_key: Ignored = None

    def plan(self, dataset: DatasetInfo) -> CreateJobBody:
        """Return what is asked of the tuning service."""
        has_prompts = PROMPT in dataset.columns or "Text" not in dataset.columns
        name = self.name or f"clova-{datetime.now(UTC).strftime(_DAY)}"
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        ratio = self.validation_split_ratio
        return CreateJobBody(
            dataset=dataset.id,
            name=name_like(name) or "clova",
            model=self.model,
            template=TEMPLATE,
            columns={} if has_prompts else _CLOVA_COLUMNS,
            shares=Shares(train=0.9 - ratio, validation=ratio, test=0.1) if ratio else Shares(),
            hyperparameters=Hyperparameters(epochs=self.train_epochs, **rate),
            metadata={_TASK_NAME: name},
        )


class StatusInfo(Camel):
    """How far a task is, and why it failed."""

    curr_step: int
    total_train_steps: int | None
    failure_reason: str | None


class Task(Camel):
    """A task. `tunedModel` is ours: what it made, by the name to call it by; deleting that does not change it."""

    id: str
    name: str
    model: str
    method: Literal["P-TUNING"] = "P-TUNING"
    task_type: Literal["GENERATION"] = "GENERATION"
    train_epochs: int
    learning_rate: float
    status: Status
    status_info: StatusInfo
    created_client_type: Literal["API"] = "API"
    created_date: datetime
    tuned_model: str | None

    @classmethod
    def of(cls, info: JobInfo) -> "Task":
        """Describe a job, whichever dialect it came by. One that is being cancelled has failed."""
        asked, is_cancelled = info.request, info.is_cancel_wanted or info.state == "cancelled"
        failed = info.error.message if info.error is not None and info.state == "failed" else None
        return cls(
            id=info.id,
            name=asked.metadata.get(_TASK_NAME, asked.name),
            model=asked.model,
            train_epochs=asked.hyperparameters.epochs,
            learning_rate=asked.hyperparameters.learning_rate,
            status="FAILED" if is_cancelled else _STATES[info.state],
            status_info=StatusInfo(
                curr_step=info.step,
                total_train_steps=info.total_steps,
                failure_reason="The task was cancelled." if is_cancelled else failed,
            ),
            created_date=info.created_at,
            tuned_model=info.soft_prompt,
        )


class TaskPage(Camel):
    """Some tasks, newest first; pages count from 0."""

    content: list[Task]
    page: int
    size: int
    total_pages: int
    total_elements: int


class PageQuery(Schema):
    """Which tasks to list."""

    page: Annotated[int, Query(ge=0, lt=2**31)] = 0
    size: Annotated[int, Query(ge=1, le=100)] = 20


@router.post("/tasks", summary="Create a training task", dependencies=[requires(Scope.TUNE)])
async def create(body: CreateTask, principal: PrincipalDep, parts: PartsDep) -> Envelope[Task]:
    """Learn from a dataset here, of columns `prompt` and `completion`, or `Text` and `Completion`.

    No foreign bucket is read: bucket and keys have no effect.
    """
    wanted = datasets.DatasetRequest(account_id=principal.account_id, reference=body.training_dataset_file_path)
    dataset = await parts.tuning.call(datasets.DESCRIBE, wanted)
    return Envelope(result=Task.of(await create_job(body.plan(dataset), principal, parts)))


@router.get("/tasks", summary="List the training tasks", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[PageQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> Envelope[TaskPage]:
    """List the tasks of your account, newest first, whichever dialect they came by."""
    jobs = await _all_jobs(principal, parts)
    start = query.page * query.size
    shown = TaskPage(
        content=[Task.of(info) for info in jobs[start : start + query.size]],
        page=query.page,
        size=query.size,
        total_pages=-(-len(jobs) // query.size),
        total_elements=len(jobs),
    )
    return Envelope(result=shown)


@router.get("/tasks/{task_id}", summary="Describe a training task", dependencies=[requires(Scope.READ)])
async def describe(task_id: str, principal: PrincipalDep, parts: PartsDep) -> Envelope[Task]:
    """Say how a task stands."""
    return Envelope(result=Task.of(await parts.tuning.call(DESCRIBE, _named(task_id, principal))))


@router.delete("/tasks/{task_id}", summary="Delete a training task", dependencies=[requires(Scope.TUNE)])
async def delete(task_id: str, principal: PrincipalDep, parts: PartsDep) -> Envelope[None]:
    """Cancel a task that has not ended, or delete the model of one that has succeeded; it is listed as before."""
    info = await parts.tuning.call(DESCRIBE, _named(task_id, principal))
    if info.soft_prompt is not None:
        wanted = soft_prompts.DeleteRequest(account_id=principal.account_id, reference=info.soft_prompt)
        try:
            await parts.generation.call(soft_prompts.DELETE, wanted)
        except HunminError as error:
            if error.code is not ErrorCode.NOT_FOUND:  # deleted before, by whichever dialect
                raise
    elif info.ended_at is None:
        await parts.tuning.call(CANCEL, _named(task_id, principal))
    return Envelope()


async def _all_jobs(principal: Principal, parts: Parts) -> list[JobInfo]:
    return await read_all(
        lambda after: parts.tuning.call(LIST, ListJobsRequest(account_id=principal.account_id, limit=200, after=after))
    )


def _named(task_id: str, principal: Principal) -> JobRequest:
    return JobRequest(account_id=principal.account_id, job_id=JobId(task_id))
