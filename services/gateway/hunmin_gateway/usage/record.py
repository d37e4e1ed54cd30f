"""What is kept of a request once it is over."""

from dataclasses import dataclass
from datetime import datetime

from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId, ApiKeyId, BatchId, ProjectId, RequestId, UsageId
from hunmin_contracts.quotas import Purpose
from hunmin_contracts.usage import Outcome


@dataclass(frozen=True)
class ReservedFor:
    """What room was reserved for: the base model, and the purpose."""

    model: str
    purpose: Purpose


@dataclass(frozen=True)
class UsageRecord:
    """One row of the ledger. `id` is made once a request, so that writing it twice writes it once."""

    id: UsageId
    request_id: RequestId
    account_id: AccountId
    project_id: ProjectId | None  # None: that of the key
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
    corrects: UsageId | None = None  # the row that this one adds to, since the engine has told more than was known then
    batch_id: BatchId | None = None
    reserved_for: ReservedFor | None = None  # no column; None: nothing was reserved here
    is_awaited: bool = False  # no column; whether the engine is still to tell what it computed
    trace_id: str | None = None
