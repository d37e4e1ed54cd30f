"""The request parameters that the routes for text share, and their way to Sampling. Pure: no I/O.

Names, ranges and defaults are NAVER's. Null means the default.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import Sampling
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from hunmin_gateway.public_schema import PublicSchema, said

MAX_STOPS = 16
DEFAULT_MAX_TOKENS = 100
_MAX_SEED = 2**32 - 1
_DEFAULT_REPEAT_PENALTY = 5.0
_DEFAULT_REPETITION_PENALTY = 1.1

Stops = Annotated[
    Annotated[list[str], Field(max_length=MAX_STOPS)] | None, said(f"a list of at most {MAX_STOPS} strings")
]


def repetition_penalty_of(repeat_penalty: float) -> float:
    """Return the older penalty, of 0 to 10, on the newer one's scale: 0 is none, and its default 5 is that of the newer
    one, 1.1. The scale between is ours: NAVER does not tell it.
    """
    return 1 + repeat_penalty * (_DEFAULT_REPETITION_PENALTY - 1) / _DEFAULT_REPEAT_PENALTY


class CamelSchema(PublicSchema):
    """A part of a request, its names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class TextParameters(CamelSchema):
    """What both versions have."""

    top_p: float | None = Field(default=None, gt=0, le=1, description="0.8 unless given.")
    top_k: int | None = Field(default=None, ge=0, le=128, description="0, which is the default, is all.")
    seed: int | None = Field(
        default=None, ge=0, le=_MAX_SEED, description="The same seed gives the same text; 0, the default, draws one."
    )
    include_ai_filters: bool | None = Field(default=None, description="Accepted; `aiFilter` is empty for now.")
    stream: bool | None = Field(
        default=None, description="As some clients send; the header `Accept: text/event-stream` streams too."
    )

    def drawn_seed(self) -> int:
        """Return the seed to use, and to tell in the answer."""
        return self.seed or 1 + secrets.randbelow(_MAX_SEED)


class FirstVersion(TextParameters):
    """The parameters of `/v1`."""

    temperature: float | None = Field(default=None, gt=0, le=1, description="0.5 unless given.")
    repeat_penalty: float | None = Field(
        default=None, gt=0, le=10, description="5 unless given; 5 is a `repetitionPenalty` of 1.1."
    )
    stop_before: Stops = Field(default=None, description="Strings that end the text, and are no part of it.")
    max_tokens: int | None = Field(default=None, gt=0, le=4096, description="100 unless given.")

    def sampling(self, seed: int) -> Sampling:
        """How the next token is chosen."""
        penalty = _DEFAULT_REPEAT_PENALTY if self.repeat_penalty is None else self.repeat_penalty
        return _sampling(self, self.temperature, repetition_penalty_of(penalty), seed)

    def stops(self) -> list[str]:
        """The stop strings; an empty one stops nothing."""
        return _stops(self.stop_before)

    def length(self) -> int:
        """How many tokens the text may have."""
        return self.max_tokens or DEFAULT_MAX_TOKENS


class ThirdVersion(TextParameters):
    """The parameters of `/v3`."""

    temperature: float | None = Field(default=None, ge=0, le=1, description="0 is greedy; 0.5 unless given.")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=2, description="As in CTRL; 1.1 unless given.")
    stop: Stops = Field(default=None, description="Strings that end the text, and are no part of it.")
    max_tokens: int | None = Field(default=None, ge=1, description="100 unless given.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Another name of `maxTokens`.")

    def sampling(self, seed: int) -> Sampling:
        """How the next token is chosen."""
        penalty = _DEFAULT_REPETITION_PENALTY if self.repetition_penalty is None else self.repetition_penalty
        return _sampling(self, self.temperature, penalty, seed)

    def stops(self) -> list[str]:
        """The stop strings; an empty one stops nothing."""
        return _stops(self.stop)

    def length(self) -> int:
        """How many tokens the text may have."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                "Parameter maxCompletionTokens: cannot be given beside maxTokens. Give one of them.",
                param="maxCompletionTokens",
            )
        return self.max_tokens or self.max_completion_tokens or DEFAULT_MAX_TOKENS


def _sampling(given: TextParameters, temperature: float | None, repetition_penalty: float, seed: int) -> Sampling:
    return Sampling(
        temperature=0.5 if temperature is None else temperature,
        top_p=0.8 if given.top_p is None else given.top_p,
        top_k=given.top_k or 0,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )


def _stops(given: Sequence[str] | None) -> list[str]:
    return [stop for stop in given or [] if stop]
