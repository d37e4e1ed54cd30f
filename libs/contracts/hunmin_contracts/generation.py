"""The generation service: a prompt in, a stream of token events out."""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from hunmin_contracts.endpoint import Endpoint, StreamEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.usage import CallOrigin

FinishReason = Literal["stop", "length"]
Priority = Literal["interactive", "batch"]  # someone waits for the answer, or nobody does

TokenId = Annotated[int, Field(ge=0, strict=True)]  # true is none
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]  # stored and logged


_BEGINNING = 64  # characters, or tokens, by which prompts are taken for alike


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

    `model` is a base model, or `name` or `name@version` of a soft prompt of the account; caches are shared within an
    account only. The prompt is text, token ids, chat messages (rendered with the model's own chat template), or values
    for the fields of the soft prompt's template, which a text fills alone if it has one field. `n` completions are
    sampled, number i with `seed + i`. `logprobs` k asks for the chosen token's log-probability and the k best ones.
    `max_tokens` null means as many as fit. `echo` returns the prompt too, with log-probabilities if asked for.
    With an `origin` the call is told of when it has ended (events.USAGE). What is `interactive` goes before a `batch`.
    """

    account_id: AccountId
    model: str
    prompt: str | list[Annotated[int, Field(ge=0)]] | list[Message] | dict[str, str]
    n: int = Field(default=1, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=0)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default=[], max_length=16)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    sampling: Sampling = Sampling()
    origin: CallOrigin | None = None
    priority: Priority = "interactive"

    @property
    def affinity(self) -> str:
        """What requests have in common that are best answered by one replica, whose cache may hold it.

        The soft prompt, if it is named with its version, else the beginning of the prompt.
        """
        beginning = "" if "@" in self.model else _beginning(self.prompt)
        return f"{self.account_id}/{self.model}/{beginning}"


def _beginning(prompt: str | list[int] | list[Message] | dict[str, str]) -> str:
    if isinstance(prompt, str):
        return prompt[:_BEGINNING]
    if isinstance(prompt, dict):
        return ""
    first = prompt[0] if prompt else ""
    return first.content[:_BEGINNING] if isinstance(first, Message) else str(prompt[:_BEGINNING])


class TopToken(Schema):
    """A candidate at one step. `bytes` are exact where `text` alone shows a broken character."""

    id: int
    text: str
    bytes: list[int]
    logprob: float


class TokenLogprob(Schema):
    """A token of prompt or completion. `bytes` are exact where `text` alone shows a broken character.

    A special token has no bytes, and its name as text.

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
    that a stream that is cut can be metered. `tokens` are filled when `logprobs` asked for them; on the last chunk
    `withheld` then holds what else was drawn and is no part of the text: the end token, or the tokens that begin in the
    stop string. `stop` is the stop string that ended it, null if an end token or the length did.
    """

    type: Literal["chunk"] = "chunk"
    index: int
    text: str
    completion_tokens: int
    tokens: list[TokenLogprob] = []
    withheld: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    stop: str | None = None


class UsageEvent(Schema):
    """Last event: what the engine metered."""

    type: Literal["usage"] = "usage"
    prompt_tokens: int
    completion_tokens: int


class GenerateEvent(RootModel[Annotated[PromptEvent | ChunkEvent | UsageEvent, Field(discriminator="type")]]):
    """One line of the stream."""


class ScoreBody(Schema):
    """The log-likelihood of each continuation after the prompt.

    A continuation is text (encoded by itself, as a completion's text would follow) or token ids. `model` and `prompt`
    are those of GenerateRequest.
    """

    model: ModelName
    prompt: str | list[TokenId] | list[Message] | dict[str, str]
    continuations: list[Annotated[str, Field(min_length=1)] | Annotated[list[TokenId], Field(min_length=1)]] = Field(
        min_length=1, max_length=128
    )


class ScoreRequest(ScoreBody):
    """Continuations to score for an account."""

    account_id: AccountId
    origin: CallOrigin | None = None
    priority: Priority = "interactive"


class ContinuationScore(Schema):
    """A continuation's log-likelihood in nats: the sum over its tokens, and the sum divided by their number."""

    logprob: float
    mean_logprob: float
    tokens: list[TokenLogprob]


class ScoreResponse(Schema):
    """One score for each continuation, in order; the prompt counts once."""

    scores: list[ContinuationScore]
    prompt_tokens: int
    continuation_tokens: int


class EmbedRequest(Schema):
    """Texts, or token ids, whose hidden states of the last layer are averaged over their tokens."""

    account_id: AccountId
    model: str
    inputs: list[
        Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    ] = Field(min_length=1, max_length=2048)
    origin: CallOrigin | None = None
    priority: Priority = "interactive"


class Embedding(Schema):
    """One input's vector [d_model], scaled to length 1 (OpenAI's are), and how many tokens it has."""

    vector: list[float]
    tokens: int


class EmbedResponse(Schema):
    """One embedding for each input, in order."""

    embeddings: list[Embedding]


class Measurement(Schema):
    """What a call would use at most, told before anything of it is computed, by the code that would compute it.

    `model` is the base model that serves it, and `reference` what to name for exactly that: the same, or a soft prompt
    with its version. `prompt_tokens` are those of all its texts; `max_tokens` is how many each completion may have, as
    GENERATE resolves it; `backward_tokens` how many positions a backward pass goes through. What would be refused for
    what it is, is refused here too; what would be refused only now, for want of room, is not.
    """

    model: str
    reference: str
    prompt_tokens: int
    max_tokens: int = 0
    backward_tokens: int = 0


class ModelInfo(Schema):
    """A model that this service serves. `digest` is the sha256 of its weights; `created` is Unix time in seconds.

    `embedding_std` is the standard deviation of its token embeddings: how large a soft prompt's rows start out.
    """

    name: str
    digest: str
    tokenizer_digest: str
    d_model: int
    embedding_std: float
    architecture: str
    context_length: int
    vocab_size: int
    dtype: Literal["float32", "bfloat16"] = "float32"  # what it is computed in here
    created: int


class ModelList(Schema):
    """Every model, by name."""

    models: list[ModelInfo]


GENERATE = StreamEndpoint(
    "POST", "/v1/generate", GenerateRequest, GenerateEvent, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
SCORE = Endpoint(
    "POST", "/v1/score", ScoreRequest, ScoreResponse, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
EMBED = Endpoint(
    "POST", "/v1/embed", EmbedRequest, EmbedResponse, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
MEASURE = Endpoint(
    "POST", "/v1/measure", GenerateRequest, Measurement, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
MEASURE_SCORE = Endpoint(
    "POST", "/v1/measure/score", ScoreRequest, Measurement, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
MEASURE_EMBED = Endpoint(
    "POST", "/v1/measure/embed", EmbedRequest, Measurement, errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED)
)
MODELS = Endpoint("GET", "/v1/models", Empty, ModelList)
