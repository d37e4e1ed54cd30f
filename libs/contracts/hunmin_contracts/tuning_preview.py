"""A template as it will be: some rows rendered in it, with their tokens, before a job is asked for."""

from typing import Literal

from pydantic import Field, model_validator

from hunmin_contracts.datasets import ReportQuestion
from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId
from hunmin_contracts.schema import Schema

MAX_SHOWN = 20


class PreviewQuestion(ReportQuestion):
    """Show `limit` rows of `dataset` after the first `offset`, behind the examples that a job would draw.

    Or `rows` that are given, text by column: of those the template's first `examples` are the examples. `dataset` is
    `name@version`, `name` for its newest version, or an id.
    """

    dataset: str | None = None
    rows: list[dict[str, str]] | None = Field(default=None, min_length=1, max_length=64 + MAX_SHOWN)
    limit: int = Field(default=3, ge=1, le=MAX_SHOWN)
    offset: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _check_source(self) -> "PreviewQuestion":
        if (self.dataset is None) == (self.rows is None):
            raise ValueError("name a dataset, or give rows, and not both")
        return self


class PreviewRequest(PreviewQuestion):
    """Show rows of an account."""

    account_id: AccountId


class PreviewToken(Schema):
    """A token. `id` of row k of the soft prompt is -1 - k, and its text empty."""

    id: int
    text: str
    kind: Literal["text", "field", "virtual", "answer"]


class PreviewRow(Schema):
    """A row in the template: the whole text and its tokens, the answer at the end. Without any, `error` says why.

    `is_shortened`: the field that may be cut is. `line` is the row's in its dataset, or its number among those given.
    """

    line: int
    text: str
    tokens: list[PreviewToken]
    is_shortened: bool = False
    error: str | None = None


class Preview(Schema):
    """`served` is the template that the soft prompt will be served with, in which the examples are text."""

    served: str
    examples: list[dict[str, str]]
    context_length: int
    rows: list[PreviewRow]


PREVIEW = Endpoint(
    "POST",
    "/v1/preview",
    PreviewRequest,
    Preview,
    is_long=True,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND),
)
