"""Jobs of the tuning service: asked for, watched, cancelled. What one is made of and tells is in `tuning`.

A job goes queued → preparing → running → succeeded, failed or cancelled; a crash sends it back to queued.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, RootModel

from hunmin_contracts.datasets import Shares
from hunmin_contracts.endpoint import Endpoint, StreamEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId, DatasetId, JobId
from hunmin_contracts.schema import Schema
from hunmin_contracts.soft_prompts import SoftPromptName
from hunmin_contracts.tuning import Hyperparameters, JobMetrics, TuningResult, TuningTemplate

JobState = Literal["queued", "preparing", "running", "succeeded", "failed", "cancelled"]
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]
DAY_S = 86_400


class JobPlan(Schema):
    """Learn a soft prompt for `model`, and publish it as the next version of `name`.

    `columns` names the column of a field whose name is not the column's own. Rows are divided by `shares` and
    `split_seed`, whatever the hyper-parameters; of the training part the first `train_rows` are used. `metadata` is
    told again, and has no effect.
    """

    name: SoftPromptName
    model: str
    template: TuningTemplate
    columns: dict[str, str] = Field(default={}, max_length=256)
    shares: Shares = Shares()
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    train_rows: int | None = Field(default=None, ge=1, lt=2**31)  # None: all
    hyperparameters: Hyperparameters = Hyperparameters()
    deadline_s: float = Field(default=DAY_S, gt=0, le=30 * DAY_S)  # from the first time it leaves the queue
    metadata: Metadata = Field(default={}, max_length=16)


class CreateJobRequest(JobPlan):
    """Do so from a dataset version."""

    account_id: AccountId
    dataset_id: DatasetId


class NewJobRequest(CreateJobRequest):
    """Do so, as the job of this id if one is given: asked for again it is the same job, and of another a `conflict`."""

    job_id: JobId | None = Field(default=None, pattern=r"^job_[0-9a-f]{24}$")

    @property
    def job(self) -> CreateJobRequest:
        """What is asked for, whatever its id."""
        return CreateJobRequest(**{field: getattr(self, field) for field in CreateJobRequest.model_fields})


class JobError(Schema):
    """Why a job failed, or why it is tried again: a code of `errors`, and what happened and what to do."""

    code: str
    message: str


class QueuePlace(Schema):
    """`position` 1 is the next. `starts_in_s` is a guess from recent jobs; null where there are none to guess from."""

    position: int
    starts_in_s: float | None


class JobInfo(Schema):
    """One job. `step` is the last that was told of, of `total_steps`, which are known once it trains.

    `soft_prompt` is what it published, `name@version`. `trained_tokens` went through the model in its steps; they are
    counted once it has ended.
    `attempt` counts from 1; `is_cancel_wanted`: it is cancelled, or will be as soon as its process is gone.
    """

    id: JobId
    request: CreateJobRequest
    state: JobState
    attempt: int
    is_cancel_wanted: bool
    step: int
    total_steps: int | None = None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    queue: QueuePlace | None
    error: JobError | None
    result: TuningResult | None
    soft_prompt: str | None
    trained_tokens: int | None = None


class JobRequest(Schema):
    """One job of the account."""

    account_id: AccountId
    job_id: JobId


class ListJobsRequest(Schema):
    """The account's jobs, newest first; `after` is the id that a page before ended with."""

    account_id: AccountId
    state: JobState | None = None
    limit: int = Field(default=50, ge=1, le=200)
    after: JobId | None = None


class JobPage(Schema):
    """Some of them. `has_more`: others follow."""

    data: list[JobInfo]
    has_more: bool


class JobMetricsRequest(Schema):
    """What a job told of its steps and evaluations, in order; `after` is the `last` of a page before."""

    account_id: AccountId
    job_id: JobId
    kind: Literal["step", "validation"] | None = None
    limit: int = Field(default=1000, ge=1, le=10_000)
    after: int = Field(default=0, ge=0, lt=2**63)


class JobMetricsPage(Schema):
    """Some of it. `last`: where the next page goes on. `has_more`: there is more already."""

    data: list[JobMetrics]
    last: int
    has_more: bool


class JobEventsRequest(Schema):
    """Everything a job tells, behind event number `after`, until it ends."""

    account_id: AccountId
    job_id: JobId
    after: int = Field(default=0, ge=0, lt=2**63)


class _Event(Schema):
    """What every event has."""

    sequence: int  # from 1, without a gap
    at: datetime


class StateEvent(_Event):
    """The job is in `state` now, or is asked to end; `error`: why it failed, or is tried again."""

    type: Literal["state"] = "state"
    state: JobState
    attempt: int
    is_cancel_wanted: bool
    error: JobError | None = None


class MetricsEvent(_Event):
    """A step or an evaluation. Each is told once, also where a crash made the job compute it twice."""

    type: Literal["metrics"] = "metrics"
    metrics: JobMetrics


class LogEvent(_Event):
    """A line that the job's process wrote."""

    type: Literal["log"] = "log"
    line: str


class JobEvent(RootModel[Annotated[StateEvent | MetricsEvent | LogEvent, Field(discriminator="type")]]):
    """Something that a job told."""


class JobHistoryRequest(Schema):
    """What a job has told so far, newest first; `before` is the number of the event that a page before ended with."""

    account_id: AccountId
    job_id: JobId
    limit: int = Field(default=50, ge=1, le=1000)
    before: int | None = Field(default=None, ge=1, lt=2**63)


class JobHistory(Schema):
    """Some of it. `has_more`: there are older events."""

    data: list[JobEvent]
    has_more: bool


CREATE = Endpoint(
    "POST",
    "/v1/jobs",
    NewJobRequest,
    JobInfo,
    is_long=True,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT),
)
LIST = Endpoint("GET", "/v1/jobs", ListJobsRequest, JobPage)
DESCRIBE = Endpoint("GET", "/v1/jobs/{job_id}", JobRequest, JobInfo, errors=(ErrorCode.NOT_FOUND,))
CANCEL = Endpoint(
    "POST", "/v1/jobs/{job_id}/cancel", JobRequest, JobInfo, errors=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
)
METRICS = Endpoint("GET", "/v1/jobs/{job_id}/metrics", JobMetricsRequest, JobMetricsPage, errors=(ErrorCode.NOT_FOUND,))
EVENTS = StreamEndpoint(
    "GET", "/v1/jobs/{job_id}/events", JobEventsRequest, JobEvent, is_endless=True, errors=(ErrorCode.NOT_FOUND,)
)
HISTORY = Endpoint("GET", "/v1/jobs/{job_id}/history", JobHistoryRequest, JobHistory, errors=(ErrorCode.NOT_FOUND,))
