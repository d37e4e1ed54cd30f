"""What an account may use: its limits, and how much of each is left."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from hunmin_contracts.ids import QuotaId
from hunmin_contracts.schema import Schema

ANY: Literal["*"] = "*"  # in place of a model or a purpose: all of them together


class Purpose(StrEnum):
    """What a metered call is made for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    SCORE = "score"
    GRADIENT = "gradient"


class LimitName(StrEnum):
    """What is limited. Minutes and months are the calendar's, in UTC.

    Tokens are those of prompts and completions. A gradient has none of them: all its positions are backward tokens.
    """

    REQUESTS_PER_MINUTE = "requests_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_MONTH = "tokens_per_month"
    BACKWARD_TOKENS_PER_MINUTE = "backward_tokens_per_minute"
    BACKWARD_TOKENS_PER_MONTH = "backward_tokens_per_month"


class LimitInfo(Schema):
    """A limit alone. `model` and `purpose` are `*` where it counts all of them together."""

    id: QuotaId
    name: LimitName
    model: str
    purpose: Purpose | Literal["*"]
    value: int


class Quota(Schema):
    """A limit, and what has been taken of it: `used` by calls that have ended, `reserved` by those that run.

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
