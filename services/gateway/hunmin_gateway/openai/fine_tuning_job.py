"""Jobs of tuning in OpenAI's shape: job, event, checkpoint, and what a request for one means. Pure: no I/O.

`ftjob-` and the digits of a job's id name it; `ftevent-` and its number an event, `ftckpt-` and its step a checkpoint.
"""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from hunmin_contracts.datasets import DatasetInfo
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.tuning import Hyperparameters, StepMetrics, ValidationMetrics
from hunmin_contracts.tuning_jobs import JobEvent, JobInfo, LogEvent, Metadata, StateEvent
from pydantic import BaseModel, Field, ValidationError
from pydantic import field_validator as validates
from pydantic_core import PydanticCustomError

from hunmin_gateway.openai.files import file_id_of
from hunmin_gateway.openai.results import results_id_of
from hunmin_gateway.public_schema import NAME, PublicSchema, only, said
from hunmin_gateway.tuning_doors import name_like

LEARNING_RATE = Hyperparameters().learning_rate  # what a multiplier multiplies
TRAIN_SHARE = 0.8
_JOB_ID = re.compile(r"ftjob-([0-9a-f]{24})")
_MAX_NAME = 63
_STATES: dict[str, "Status"] = {
    "queued": "queued",
    "preparing": "validating_files",
    "running": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
_TOLD = {
    "queued": "The job waits for its turn.",
    "preparing": "The file is being read.",
    "running": "The training runs.",
    "succeeded": "The job has succeeded.",
    "failed": "The job has failed.",
    "cancelled": "The job was cancelled.",
}

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
_Whole = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)] | None, said('"auto" or a whole number from 1')]


class HyperparametersBody(PublicSchema):
    """How to train; what is `auto`, or left out, is chosen by the number of rows."""

    n_epochs: _Whole = Field(default=None, description="At most 1000.")
    batch_size: _Whole = Field(default=None, description="At most 4096 rows.")
    learning_rate_multiplier: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0, le=100)] | None, said('"auto" or a number over 0, at most 100')
    ] = Field(default=None, description=f"Of {LEARNING_RATE}.")


class SupervisedBody(PublicSchema):
    """The one method that is served."""

    hyperparameters: HyperparametersBody | None = None


class MethodBody(PublicSchema):
    """How to tune."""

    type: Annotated[Literal["supervised"], said('"supervised": preferences and rewards are not learned here')]
    supervised: SupervisedBody | None = None
    dpo: Annotated[None, only()] = None
    reinforcement: Annotated[None, only()] = None


class CreateJob(PublicSchema):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: str = Field(min_length=1, max_length=200, pattern=NAME, description="A base model of `GET /v1/models`.")
    training_file: str = Field(min_length=1, max_length=200, description="The id of a file.")
    validation_file: str | None = None
    suffix: str | None = Field(
        default=None, min_length=1, max_length=64, description="The tuned model's name; without it, the file's."
    )
    hyperparameters: HyperparametersBody | None = Field(default=None, description="The older place of the method's.")
    method: MethodBody | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    integrations: Annotated[None, only([])] = None
    metadata: Metadata | None = Field(default=None, max_length=16)

    @validates("validation_file")
    @classmethod
    def _is_left_out(cls, value: str | None) -> str | None:
        if value is not None:
            raise PydanticCustomError(
                "unsupported_parameter",
                "not supported here, leave it out: a tenth of training_file validates, and another tenth tests",
            )
        return value

    @validates("method")
    @classmethod
    def _agrees(cls, method: MethodBody | None, info: Any) -> MethodBody | None:
        if method and method.supervised and method.supervised.hyperparameters and info.data.get("hyperparameters"):
            raise PydanticCustomError("invalid_value", "holds hyperparameters, as the body does; give them once")
        return method

    def chosen(self, rows: int) -> Hyperparameters:
        """Return how to train with so many rows: where it is left to us, a hundred steps or five rounds at least."""
        supervised = self.method.supervised if self.method else None
        asked = (supervised and supervised.hyperparameters) or self.hyperparameters or HyperparametersBody()
        training = max(1, int(TRAIN_SHARE * rows))
        batch = _given(asked.batch_size) or min(32, max(4, training // 25))
        epochs = _given(asked.n_epochs) or min(20, max(5, math.ceil(100 * batch / training)))
        multiplier = asked.learning_rate_multiplier
        rate = LEARNING_RATE if multiplier in (None, "auto") else LEARNING_RATE * float(multiplier)
        try:
            return Hyperparameters(epochs=epochs, batch_size=batch, learning_rate=rate, seed=self.seed or 0)
        except ValidationError:
            message = "Parameter hyperparameters: n_epochs is at most 1000 and batch_size at most 4096."
            raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="hyperparameters") from None

    def name(self, dataset: DatasetInfo) -> str:
        """Return the name that the tuned model is a version of."""
        if self.suffix is None:
            return f"ft-{dataset.name}"[:_MAX_NAME]
        if (name := name_like(self.suffix)) is None:
            message = "Parameter suffix: a model's name has Latin letters, digits, - and _. Send some letters."
            raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="suffix")
        return name


class JobErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class ChosenHyperparameters(BaseModel):
    """How it is trained, in numbers."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class Supervised(BaseModel):
    """The method's part."""

    hyperparameters: ChosenHyperparameters


class Method(BaseModel):
    """How it is tuned."""

    type: Literal["supervised"] = "supervised"
    supervised: Supervised


class FineTuningJob(BaseModel):
    """A job. `fine_tuned_model` is what it made, by the name to call it by; deleting that does not change it."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: Status
    error: JobErrorBody | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: None = None
    result_files: list[str]
    trained_tokens: int | None
    hyperparameters: ChosenHyperparameters
    method: Method
    seed: int
    integrations: list[None] = []
    metadata: dict[str, str]

    @classmethod
    def of(cls, info: JobInfo) -> "FineTuningJob":
        """Describe a job of the tuning service, whoever asked for it. One that is being cancelled is cancelled."""
        asked, has_succeeded = info.request, info.state == "succeeded"
        chosen = ChosenHyperparameters(
            n_epochs=asked.hyperparameters.epochs,
            batch_size=asked.hyperparameters.batch_size,
            learning_rate_multiplier=round(asked.hyperparameters.learning_rate / LEARNING_RATE, 9),
        )
        return cls(
            id=job_id_here(info.id),
            created_at=int(info.created_at.timestamp()),
            finished_at=None if info.ended_at is None else int(info.ended_at.timestamp()),
            estimated_finish=_estimated_finish(info, datetime.now(UTC)),
            status="cancelled" if info.is_cancel_wanted else _STATES[info.state],
            error=JobErrorBody(code=info.error.code, message=info.error.message)
            if info.error is not None and info.state == "failed"
            else None,
            model=asked.model,
            fine_tuned_model=info.soft_prompt,
            organization_id=asked.account_id,
            training_file=file_id_of(asked.dataset_id),
            result_files=[results_id_of(info.id)] if has_succeeded else [],
            trained_tokens=info.trained_tokens,
            hyperparameters=chosen,
            method=Method(supervised=Supervised(hyperparameters=chosen)),
            seed=asked.hyperparameters.seed,
            metadata=asked.metadata,
        )


class FineTuningEvent(BaseModel):
    """Something that a job has told."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, float] | None = None

    @classmethod
    def of(cls, job_id: JobId, event: JobEvent) -> "FineTuningEvent":
        """Describe an event of the tuning service."""
        told = event.root
        head = {"id": event_id_of(job_id, told.sequence), "created_at": int(told.at.timestamp())}
        if isinstance(told, LogEvent):
            return cls(**head, message=told.line)
        if isinstance(told, StateEvent):
            message = "The job is being cancelled." if told.is_cancel_wanted else _TOLD[told.state]
            if told.is_cancel_wanted and told.state == "cancelled":
                message = _TOLD["cancelled"]
            if told.error is None:
                return cls(**head, message=message)
            level: Literal["warn", "error"] = "error" if told.state == "failed" else "warn"
            return cls(**head, level=level, message=f"{message} {told.error.message}")
        message, data = _measured(told.metrics)
        return cls(**head, message=message, type="metrics", data=data)


class CheckpointMetrics(BaseModel):
    """What was measured on the part that validates."""

    step: int
    full_valid_loss: float


class Checkpoint(BaseModel):
    """A state of the soft prompt that was kept, and can be called."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


def checkpoint_of(info: JobInfo) -> Checkpoint | None:
    """Return the one that a job keeps, which is its soft prompt at the step that validated best; None before it has."""
    if info.result is None or info.soft_prompt is None or info.ended_at is None:
        return None
    step = info.result.best_step
    return Checkpoint(
        id=f"ftckpt-{info.id.removeprefix('job_')}-{step}",
        created_at=int(info.ended_at.timestamp()),
        fine_tuned_model_checkpoint=info.soft_prompt,
        fine_tuning_job_id=job_id_here(info.id),
        step_number=step,
        metrics=CheckpointMetrics(step=step, full_valid_loss=info.result.validation_loss),
    )


def job_id_here(job_id: JobId) -> str:
    """Return a job's id in this dialect."""
    return "ftjob-" + job_id.removeprefix("job_")


def job_id_of(job_id: str) -> JobId:
    """Return a job's own id; `not_found` if this is no id of a job."""
    found = _JOB_ID.fullmatch(job_id)
    if found is None:
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no fine-tuning job {job_id[:60]!r} in this account.")
    return JobId("job_" + found[1])


def event_id_of(job_id: JobId, sequence: int) -> str:
    """Return an event's id."""
    return f"ftevent-{job_id.removeprefix('job_')}-{sequence}"


def sequence_of(event_id: str, job_id: JobId) -> int:
    """Return an event's number; `invalid_parameter` if this is no id of an event of the job."""
    found = re.fullmatch(event_id_of(job_id, 0)[:-1] + r"([1-9][0-9]{0,17})", event_id)
    if found is None:
        message = "Parameter after: no event of this job. Send the last id of the page before."
        raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="after")
    return int(found[1])


def _given(value: Literal["auto"] | int | None) -> int | None:
    return value if isinstance(value, int) else None


def _measured(metrics: StepMetrics | ValidationMetrics) -> tuple[str, dict[str, float]]:
    if isinstance(metrics, StepMetrics):
        data = {"step": metrics.step, "total_steps": metrics.total_steps, "train_loss": metrics.loss}
        return f"Step {metrics.step}/{metrics.total_steps}: training loss={metrics.loss:.4f}", data
    data = {"step": metrics.step, "full_valid_loss": metrics.loss}
    kept = ", the best so far" if metrics.is_best else ""
    return f"Step {metrics.step}: validation loss={metrics.loss:.4f}{kept}", data


def _estimated_finish(info: JobInfo, now: datetime) -> int | None:
    if info.state != "running" or info.is_cancel_wanted or info.started_at is None or not info.step:
        return None
    left_s = (now - info.started_at).total_seconds() * ((info.total_steps or info.step) / info.step - 1)
    return int(now.timestamp() + left_s)
