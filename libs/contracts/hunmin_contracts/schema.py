"""The base of every request and reply: unknown fields are refused, values are immutable once built."""

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A strict, frozen message. An unknown field fails validation with its path."""

    # NaN and Infinity are no JSON; an error message must not quote the input, which may be a prompt.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Empty(Schema):
    """The request of an endpoint that takes nothing."""
