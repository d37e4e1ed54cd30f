"""Chat completions of the OpenAI dialect: the request, the answer, and the way from one to the other. Pure: no I/O."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from hunmin_contracts.generation import ChunkEvent, GenerateRequest, Message, PromptEvent, TokenLogprob
from hunmin_contracts.ids import AccountId
from pydantic import BaseModel, Field
from pydantic import field_validator as validates
from pydantic_core import PydanticCustomError

from hunmin_gateway.exchange import Event
from hunmin_gateway.openai.head import Head, Usage
from hunmin_gateway.openai.parameters import MAX_LOGPROBS, Ignored, Parameters
from hunmin_gateway.openai.pieces import by_index
from hunmin_gateway.public_schema import PublicSchema, absent, only, said


class TextPart(PublicSchema):
    """A part of a message's content. Images, audio and files are not served."""

    type: Literal["text"]
    text: str


class ChatMessage(PublicSchema):
    """One turn. `developer` is read as `system`; text parts are joined without anything between them."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[TextPart], said('a string or a list of parts {"type": "text", "text": "…"}')]

    # An assistant's message comes back as it was sent, with these fields empty.
    refusal: Annotated[None, only()] = None
    annotations: Annotated[None, only([])] = None
    audio: Annotated[None, only()] = None
    function_call: Annotated[None, only()] = None
    tool_calls: Annotated[None, only([])] = None

    def message(self) -> Message:
        """The turn as the generation service takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class ChatCompletionRequest(Parameters):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="As many as fit unless given.")
    max_tokens: int | None = Field(default=None, ge=1, description="The older name of `max_completion_tokens`.")
    logprobs: bool | None = Field(default=None, description="Return the log-probability of each token.")
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS, description="And of the k likeliest ones.")

    metadata: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    parallel_tool_calls: Ignored = None
    store: Annotated[None, only(False)] = None
    service_tier: Annotated[None, only("auto", "default")] = None
    modalities: Annotated[None, only(["text"])] = None
    response_format: Annotated[None, only({"type": "text"})] = None
    tools: Annotated[None, only([])] = None
    tool_choice: Annotated[None, only("none")] = None
    functions: Annotated[None, only([])] = None
    function_call: Annotated[None, only("none")] = None
    audio: Annotated[None, only()] = None
    prediction: Annotated[None, only()] = None
    reasoning_effort: Annotated[None, only("none")] = None
    verbosity: Annotated[None, only()] = None
    web_search_options: Annotated[None, only()] = None
    moderation: Annotated[None, only()] = None
    prompt_cache_options: Annotated[None, only()] = None
    prompt_cache_retention: Annotated[None, only()] = None

    @validates("max_tokens", mode="after")
    @classmethod
    def _agrees(cls, value: int | None, info: Any) -> int | None:
        other = info.data.get("max_completion_tokens")
        if value is not None and other is not None and value != other:
            raise PydanticCustomError("invalid_value", "contradicts max_completion_tokens; give one of them")
        return value

    @validates("top_logprobs", mode="after")
    @classmethod
    def _needs_logprobs(cls, value: int | None, info: Any) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise PydanticCustomError("invalid_value", "only allowed with logprobs=true")
        return value

    def generate_requests(self, account_id: AccountId) -> list[GenerateRequest]:
        """What to ask of the generation service: one request."""
        return [
            GenerateRequest(
                account_id=account_id,
                model=self.model,
                prompt=[message.message() for message in self.messages],
                n=self.choices,
                max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
                stop=self.stops(),
                logprobs=(self.top_logprobs or 0) if self.logprobs else None,
                sampling=self.sampling(),
            )
        ]


class TopLogprob(BaseModel):
    """A candidate at one place; `bytes` are exact where the token is a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(BaseModel):
    """A token of the answer with its log-probability and the likeliest candidates at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """The tokens of a choice, or of a piece of one."""

    content: list[ChatTokenLogprob]


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    content: str | None = Field(default=None, exclude_if=absent)


class ChunkChoice(BaseModel):
    """The next piece of one choice."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(BaseModel):
    """One line of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = Field(default=None, exclude_if=absent)


class ChatAnswer(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One whole choice."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletion(BaseModel):
    """The answer that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatWriter:
    """Turns events into choices. The first piece of each names the role: a stream starts once it is accepted."""

    def __init__(self, request: ChatCompletionRequest, head: Head) -> None:
        self._request = request
        self._head = head

    def pieces(self, number: int, event: Event) -> Iterator[ChunkChoice]:
        """Yield what `event` adds; there is one prompt, whose `number` is 0."""
        if isinstance(event, PromptEvent):
            for index in range(self._request.choices):
                yield ChunkChoice(index=index, delta=Delta(role="assistant", content=""))
        elif isinstance(event, ChunkEvent):
            logprobs = ChatLogprobs(content=_tokens(event.tokens)) if self._request.logprobs else None
            delta = Delta(content=event.text)
            yield ChunkChoice(index=event.index, delta=delta, logprobs=logprobs, finish_reason=event.finish_reason)

    def chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatCompletionChunk:
        """Return one chunk of a stream; the last one holds no choices but the usage."""
        return ChatCompletionChunk(**self._head.fields(), choices=choices, usage=usage)

    def whole(self, pieces: list[ChunkChoice], usage: Usage) -> ChatCompletion:
        """Join all pieces into the answer that is not streamed."""
        choices = [_joined(index, group) for index, group in by_index(pieces)]
        return ChatCompletion(**self._head.fields(), choices=choices, usage=usage)


def _tokens(tokens: list[TokenLogprob]) -> list[ChatTokenLogprob]:
    return [
        ChatTokenLogprob(
            token=token.text,
            logprob=token.logprob,
            bytes=token.bytes,
            top_logprobs=[TopLogprob(token=top.text, logprob=top.logprob, bytes=top.bytes) for top in token.top],
        )
        for token in tokens
        if token.logprob is not None  # only the first token of a prompt has none, and a prompt is not echoed here
    ]


def _joined(index: int, pieces: list[ChunkChoice]) -> ChatChoice:
    parts = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    logprobs = ChatLogprobs(content=[token for part in parts for token in part.content]) if parts else None
    answer = ChatAnswer(content="".join(piece.delta.content or "" for piece in pieces))
    return ChatChoice(index=index, message=answer, logprobs=logprobs, finish_reason=pieces[-1].finish_reason)
