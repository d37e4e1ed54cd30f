"""Events: what has happened in a service, told to others once it is committed. Topics are declared here alone.

A topic carries one kind of event, in an envelope with the names of CloudEvents 1.0, as one JSON document. Its schema is
committed (libs/contracts/schemas) and changes only so that older and newer releases read each other; a change that they
could not read is a new topic, `….v2`.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from hunmin_contracts.ids import (
    AccountId,
    ApiKeyId,
    AuditEntryId,
    BatchId,
    EventId,
    JobId,
    ProjectId,
    RequestId,
    SoftPromptId,
    UsageId,
)
from hunmin_contracts.usage import Outcome

MAX_EVENT_BYTES = 1_000_000  # of the document: with its headers it fits the 1 MiB that a Kafka broker takes unless told
DEAD = ".dead"


class EventModel(BaseModel):
    """The base of what events hold. Fields that a reader does not know are of a newer release, and passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


DataT = TypeVar("DataT", bound=EventModel)


class Envelope(EventModel, Generic[DataT]):
    """One event. `subject` is what it is about: events of a topic about the same keep their order, others need not."""

    specversion: Literal["1.0"]
    id: EventId
    source: str  # the service that tells it
    type: str  # the topic's name
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"]
    data: DataT


@dataclass(frozen=True)
class Topic(Generic[DataT]):
    """A topic, `hunmin.<service>.<noun>.v<number>`, and what its events hold."""

    name: str
    data: type[DataT]

    @property
    def service(self) -> str:
        """The service whose events these are."""
        return self.name.split(".")[1]

    @property
    def dead(self) -> str:
        """The topic of those that a consumer could not handle."""
        return self.name + DEAD

    @cached_property
    def envelope(self) -> type[Envelope[DataT]]:
        """The type of one event."""
        return Envelope.__class_getitem__(self.data)  # type: ignore[return-value]  # typed for pydantic's own use


class UsageMetered(EventModel):
    """A call to generation has ended, however: `outcome`, and what was computed for it until then. Refusals have none.

    An exchange of the gateway (`usage_id`, the subject) may make several `calls`, each with an event of its own.
    `key_id`, `endpoint` and `started_at` are the exchange's. `backward_tokens` are positions that a backward pass went
    through.
    """

    usage_id: UsageId
    request_id: RequestId
    account_id: AccountId
    key_id: ApiKeyId
    endpoint: str
    model: str
    started_at: datetime
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    backward_tokens: int = Field(ge=0)
    outcome: Outcome
    error_code: str | None  # of a failed one; any text, since there will be other codes
    batch_id: BatchId | None = None  # whose line the exchange was
    calls: int | None = Field(default=None, ge=1)  # None: told by a release that did not know


class BatchChanged(EventModel):
    """A batch of the gateway (`batch_id`, the subject) has come to `status`, with its counts then.

    `status` is that of OpenAI's batches; any text, since there may be others. A `validating` one has just been made.
    """

    batch_id: BatchId
    account_id: AccountId
    status: str
    total: int = Field(ge=0)
    completed: int = Field(ge=0)
    failed: int = Field(ge=0)


class AuditRecorded(EventModel):
    """Somebody has changed an account, or what belongs to it. The fields are those of `AuditEntry`.

    It is about its account; what is above all accounts about its subject.
    """

    id: AuditEntryId
    at: datetime
    account_id: AccountId | None
    project_id: ProjectId | None
    actor_kind: str  # any text, as `action`: there will be others
    actor_id: str | None
    action: str
    subject_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: RequestId | None


class JobChanged(EventModel):
    """A tuning job is in another state, the first one included. It is about the job.

    `soft_prompt` is what it has published, `name@version`; `error_code` is of one that failed, or is tried again.
    """

    job_id: JobId
    account_id: AccountId
    model: str
    state: str  # any text: there may be other states
    is_ended: bool
    attempt: int
    soft_prompt: str | None
    error_code: str | None


class SoftPromptChanged(EventModel):
    """A version of a soft prompt was imported, promoted or deleted. It is about the name: `account_id/name`."""

    soft_prompt_id: SoftPromptId
    account_id: AccountId
    name: str
    version: int
    model: str
    change: str  # any text: there may be other changes


USAGE = Topic("hunmin.generation.usage.v1", UsageMetered)
AUDIT = Topic("hunmin.gateway.audit.v1", AuditRecorded)
BATCH = Topic("hunmin.gateway.batch.v1", BatchChanged)
JOB = Topic("hunmin.tuning.job.v1", JobChanged)
SOFT_PROMPT = Topic("hunmin.generation.soft-prompt.v1", SoftPromptChanged)

TOPICS: tuple[Topic[EventModel], ...] = (USAGE, AUDIT, BATCH, JOB, SOFT_PROMPT)  # type: ignore[assignment]  # a tuple of topics of any kind
