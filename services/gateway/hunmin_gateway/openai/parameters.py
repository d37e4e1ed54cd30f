"""The request parameters that both completion routes of the OpenAI dialect share, and what becomes of the others.

Every parameter of OpenAI's is one of three: served; harmless, so accepted and without effect (`user`, `metadata`, …);
or not served, so accepted only with a value that asks for nothing, else refused by name.
"""

from typing import Annotated, Any

from hunmin_contracts.generation import Sampling
from pydantic import Field
from pydantic import field_validator as validates
from pydantic_core import PydanticCustomError

from hunmin_gateway.public_schema import NAME, PublicSchema, only, said

MAX_CHOICES = 16  # per prompt; the bound of GenerateRequest.n
MAX_LOGPROBS = 20
MAX_STOPS = 4

Ignored = Annotated[Any, Field(description="Accepted, without effect.")]


class StreamOptions(PublicSchema):
    """What a stream carries beside the text."""

    include_usage: bool | None = Field(default=None, description="End the stream with a chunk that holds the usage.")
    include_obfuscation: Annotated[None, only(False)] = None


Stop = Annotated[list[str], Field(max_length=MAX_STOPS)]


class Parameters(PublicSchema):
    """Parameters common to completions and chat completions. Null means the default."""

    model: str = Field(min_length=1, max_length=200, pattern=NAME, description="A name from `GET /v1/models`.")
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Choices per prompt; 1 unless given.")
    stop: Annotated[str | Stop | None, said(f"a string or a list of at most {MAX_STOPS} strings")] = Field(
        default=None, description="Strings that end a choice; they are not part of its text."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="The same seed gives the same text.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy; 1 unless given.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    top_k: int | None = Field(
        default=None, ge=0, lt=2**31, description="Ours: sample among the k likeliest tokens; 0 is all."
    )
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="Ours: as in CTRL; 1 is none.")

    user: Ignored = None
    logit_bias: Annotated[None, only({})] = None

    @validates("stream_options", mode="after")
    @classmethod
    def _only_when_streaming(cls, options: StreamOptions | None, info: Any) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("invalid_value", "only allowed with stream=true")
        return options

    @property
    def choices(self) -> int:
        """How many choices each prompt gets."""
        return self.n or 1

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def stops(self) -> list[str]:
        """The stop strings as a list; an empty string, as some clients send for "none", stops nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]

    def sampling(self) -> Sampling:
        """How the next token is chosen, with the defaults for what was left out."""
        given = {name: getattr(self, name) for name in Sampling.model_fields}
        return Sampling(**{name: value for name, value in given.items() if value is not None})
