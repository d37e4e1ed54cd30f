"""What the gateway tells an account of its own usage."""

from datetime import date, datetime
from enum import StrEnum

from pydantic import Field

from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import ApiKeyId, BatchId, ProjectId, RequestId, UsageId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema


class Outcome(StrEnum):
    """How a request ended. A cancelled one used what was computed until its client left; a failed one nothing."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallOrigin(Schema):
    """The exchange of the gateway that makes a call: for whom it is metered, also if that gateway is lost."""

    usage_id: UsageId
    key_id: ApiKeyId
    endpoint: str
    started_at: datetime
    batch_id: BatchId | None = None  # whose line it is
    calls: int = Field(default=1, ge=1)  # how many the exchange makes


class UsageRow(Schema):
    """What one request used. `backward_tokens`: positions that a backward pass went through.

    One that `is_correction` adds to the row of the same request, which was cut: what the engine had computed for it
    before it knew.
    `batch_id`: the batch that it was a line of. Its tokens are true ones; of quotas it took half of them.
    `trace_id`: the W3C trace that the request was part of, in hexadecimal: what each service did for it is there.
    """

    request_id: RequestId
    project_id: ProjectId | None  # null: of a key that is gone, by a gateway that was lost
    key_id: ApiKeyId
    model: str
    endpoint: str
    prompt_tokens: int
    completion_tokens: int
    backward_tokens: int
    status: Outcome
    error_code: ErrorCode | None
    started_at: datetime
    duration_s: float
    is_correction: bool = False
    batch_id: BatchId | None
    trace_id: str | None


class UsagePage(Page[UsageRow]):
    """Rows, newest first."""


class UsageSum(Schema):
    """What the requests of one group used together. What rows were not grouped by is null; `day` is one in UTC.

    Of the tokens of prompts and completions `batch_tokens` were used by lines of batches, and `quota_tokens` is what
    quotas counted: of those the half, each request's rounded up.
    """

    day: date | None
    project_id: ProjectId | None
    key_id: ApiKeyId | None
    model: str | None
    requests: int
    succeeded: int
    failed: int
    cancelled: int
    prompt_tokens: int
    completion_tokens: int
    backward_tokens: int
    batch_tokens: int
    quota_tokens: int


class UsageSummary(Schema):
    """Sums over the requests that were started in `[since, until)`, newest day first, then by project, key, model."""

    since: datetime
    until: datetime
    data: list[UsageSum]
