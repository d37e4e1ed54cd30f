"""What an account may use: its limits, and how much of each is left."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from hunmin_contracts.ids import QuotaId
from hunmin_contracts.schema import Schema

ANY: Literal["*"] = "*"  # in place of a model or a purpose: all of them together


class Purpose(StrEnum):
    """What a metered call, or a job, is made for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    SCORE = "score"
    GRADIENT = "gradient"
    TUNING = "tuning"


class LimitName(StrEnum):
    """What is limited. Minutes and months are the calendar's, in UTC.

    Tokens are those of prompts and completions. A gradient has none of them: all its positions are backward tokens.
    Tuning jobs run until they have ended, those in the queue too. Storage is what an account keeps, of any model.
    """

    REQUESTS_PER_MINUTE = "requests_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_MONTH = "tokens_per_month"
    BACKWARD_TOKENS_PER_MINUTE = "backward_tokens_per_minute"
    BACKWARD_TOKENS_PER_MONTH = "backward_tokens_per_month"
    RUNNING_JOBS = "running_jobs"
    STORAGE_BYTES = "storage_bytes"


class LimitInfo(Schema):
    """A limit alone. `model` and `purpose` are `*` where it counts all of them together."""

    id: QuotaId
    name: LimitName
    model: str
    purpose: Purpose | Literal["*"]
    value: int


class Quota(Schema):
    """A limit, and what has been taken of it: `used` by calls that have ended, `reserved` by those that run.

    Of storage, `used` is what is kept, and `reserved` what uploads that run may come to.
    `model` is a base model, to which its soft prompts count; `*` is all of them together. `resets_at` is when its
    minute or month ends, and null for what runs at a time.
    """

    id: QuotaId
    name: LimitName
    model: str
    purpose: Purpose | Literal["*"]
    value: int
    used: int
    reserved: int
    remaining: int
    resets_at: datetime | None


class QuotaList(Schema):
    """Every limit of an account."""

    data: list[Quota]
