"""The base of every request and reply: unknown fields are refused, values are immutable once built."""

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A strict, frozen message. An unknown field fails validation with its path."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Empty(Schema):
    """The request of an endpoint that takes nothing."""
