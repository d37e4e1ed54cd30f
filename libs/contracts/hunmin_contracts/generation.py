"""The generation service: a prompt in, a stream of token events out."""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from hunmin_contracts.endpoint import Endpoint, StreamEndpoint
from hunmin_contracts.schema import Empty, Schema

FinishReason = Literal["stop", "length"]


class Message(Schema):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Schema):
    """How the next token is chosen. Temperature 0 is greedy; `top_k` 0 and `top_p` 1 do not cut.

    Penalties follow the field: repetition as CTRL (Keskar et al. 2019: divides or multiplies the logits of tokens seen
    in prompt or completion), frequency and presence as OpenAI (subtracted, over the completion only).
    """

    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=2**31)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)


class GenerateRequest(Schema):
    """What to complete, and how.

    The prompt is text, token ids, or chat messages (rendered with the model's own chat template). `n` completions are
    sampled, number i with `seed + i`. `logprobs` k asks for the chosen token's log-probability and the k best ones.
    `max_tokens` null means as many as fit. `echo` returns the prompt too, with log-probabilities if asked for.
    """

    model: str
    prompt: str | list[Annotated[int, Field(ge=0)]] | list[Message]
    n: int = Field(default=1, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=0)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default=[], max_length=16)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    sampling: Sampling = Sampling()


class TopToken(Schema):
    """A candidate at one step. `bytes` are exact where `text` alone shows a broken character."""

    id: int
    text: str
    bytes: list[int]
    logprob: float


class TokenLogprob(Schema):
    """A token of prompt or completion. `bytes` are exact where `text` alone shows a broken character.

    `logprob` is a natural logarithm of the model's own distribution (before temperature, penalties and cuts), and null
    for the first prompt token.
    """

    id: int
    text: str
    bytes: list[int]
    logprob: float | None
    top: list[TopToken] = []


class PromptEvent(Schema):
    """First event: the prompt was accepted. `text` and `tokens` are there when `echo` asked for them."""

    type: Literal["prompt"] = "prompt"
    prompt_tokens: int
    text: str | None = None
    tokens: list[TokenLogprob] = []


class ChunkEvent(Schema):
    """New text of completion `index`. The last chunk of an index carries its finish reason.

    `completion_tokens` counts the tokens of this index generated so far, also those whose text is still held back, so
    that a stream that is cut can be metered. `tokens` are filled when `logprobs` asked for them.
    """

    type: Literal["chunk"] = "chunk"
    index: int
    text: str
    completion_tokens: int
    tokens: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None


class UsageEvent(Schema):
    """Last event: what the engine metered."""

    type: Literal["usage"] = "usage"
    prompt_tokens: int
    completion_tokens: int


class GenerateEvent(RootModel[Annotated[PromptEvent | ChunkEvent | UsageEvent, Field(discriminator="type")]]):
    """One line of the stream."""


class ModelInfo(Schema):
    """A model that this service serves. `digest` is the sha256 of its weights; `created` is Unix time in seconds."""

    name: str
    digest: str
    architecture: str
    context_length: int
    vocab_size: int
    created: int


class ModelList(Schema):
    """Every model, by name."""

    models: list[ModelInfo]


GENERATE = StreamEndpoint("POST", "/v1/generate", GenerateRequest, GenerateEvent)
MODELS = Endpoint("GET", "/v1/models", Empty, ModelList)
