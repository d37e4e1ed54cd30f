"""Chat completions, in both versions: the request, the answer, and the way from one to the other. Pure: no I/O."""

import time
from typing import Annotated, Literal

from hunmin_contracts.generation import ChunkEvent, GenerateRequest
from hunmin_contracts.ids import AccountId
from pydantic import Field

from hunmin_gateway.clova.envelope import Camel
from hunmin_gateway.clova.messages import PartedMessages, TextMessages, chat_of, unserved_but
from hunmin_gateway.clova.parameters import FirstVersion, ThirdVersion
from hunmin_gateway.clova.text import StopReason, Text
from hunmin_gateway.exchange import Event
from hunmin_gateway.public_schema import absent, only


class ChatRequest(FirstVersion):
    """The body of `POST /v1/chat-completions/{model}`."""

    messages: TextMessages
    # langchain-community lets it slip into what it streams.
    run_manager: Annotated[None, only()] = Field(default=None, alias="run_manager", description="Accepted as null.")

    def generate_request(self, account_id: AccountId, model: str, seed: int) -> GenerateRequest:
        """What to ask of the generation service."""
        return _asked(self, self.messages, account_id, model, seed)

    def writer(self, seed: int) -> "ChatWriter":
        """What writes the answer."""
        return ChatWriter(self, seed)


class ThirdChatRequest(ThirdVersion):
    """The body of `POST /v3/chat-completions/{model}`."""

    messages: PartedMessages
    tools: Annotated[None, unserved_but([])] = None
    tool_choice: Annotated[None, unserved_but("none")] = None
    response_format: Annotated[None, unserved_but()] = None
    thinking: Annotated[None, unserved_but({"effort": "none"})] = None

    def generate_request(self, account_id: AccountId, model: str, seed: int) -> GenerateRequest:
        """What to ask of the generation service."""
        return _asked(self, self.messages, account_id, model, seed)

    def writer(self, seed: int) -> "ThirdChatWriter":
        """What writes the answer."""
        return ThirdChatWriter(self, seed)


def _asked(
    body: FirstVersion | ThirdVersion,
    messages: TextMessages | PartedMessages,
    account_id: AccountId,
    model: str,
    seed: int,
) -> GenerateRequest:
    return GenerateRequest(
        account_id=account_id,
        model=model,
        prompt=chat_of(messages),
        max_tokens=body.length(),
        stop=body.stops(),
        sampling=body.sampling(seed),
    )


class Turn(Camel):
    """The model's turn, or a piece of it."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatToken(Camel):
    """A piece of a streamed answer, with the counts so far."""

    message: Turn
    input_length: int
    output_length: int
    stop_reason: StopReason | None


class ChatResult(ChatToken):
    """The whole answer. `aiFilter` is there if it was asked for."""

    seed: int
    ai_filter: list[dict[str, str]] | None = Field(default=None, exclude_if=absent)


class ChatWriter:
    """Turns the events of one chat into pieces and an answer, in the first version."""

    def __init__(self, body: ChatRequest, seed: int) -> None:
        self._body = body
        self._seed = seed
        self._text = Text()

    def take(self, event: Event) -> ChatToken | None:
        """Take note of an event; return the piece of text that it brings, if any."""
        self._text.take(event)
        if not isinstance(event, ChunkEvent) or not event.text:
            return None
        return ChatToken(
            message=Turn(content=event.text),
            input_length=self._text.input_length,
            output_length=self._text.output_length,
            stop_reason=self._text.stop_reason,
        )

    def result(self) -> ChatResult:
        """Return the whole answer."""
        return ChatResult(
            message=Turn(content=self._text.content),
            input_length=self._text.input_length,
            output_length=self._text.output_length,
            stop_reason=self._text.stop_reason,
            seed=self._seed,
            ai_filter=[] if self._body.include_ai_filters else None,
        )


class ThirdUsage(Camel):
    """Exact counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ThirdChatToken(Camel):
    """A piece of a streamed answer. `created` is Unix time in seconds; `usage` is told at the end."""

    message: Turn
    finish_reason: Literal["stop", "length"] | None
    created: int
    seed: int
    usage: ThirdUsage | None = None


class ThirdChatResult(ThirdChatToken):
    """The whole answer. `aiFilter` is there if it was asked for."""

    ai_filter: list[dict[str, str]] | None = Field(default=None, exclude_if=absent)


class ThirdChatWriter:
    """Turns the events of one chat into pieces and an answer, in the third version."""

    def __init__(self, body: ThirdChatRequest, seed: int) -> None:
        self._body = body
        self._seed = seed
        self._created = int(time.time())
        self._text = Text()

    def take(self, event: Event) -> ThirdChatToken | None:
        """Take note of an event; return the piece of text that it brings, if any."""
        self._text.take(event)
        if not isinstance(event, ChunkEvent) or not event.text:
            return None
        return ThirdChatToken(
            message=Turn(content=event.text),
            finish_reason=self._text.finish_reason,
            created=self._created,
            seed=self._seed,
        )

    def result(self) -> ThirdChatResult:
        """Return the whole answer."""
        text = self._text
        return ThirdChatResult(
            message=Turn(content=text.content),
            finish_reason=text.finish_reason,
            created=self._created,
            seed=self._seed,
            usage=ThirdUsage(
                prompt_tokens=text.input_length,
                completion_tokens=text.output_length,
                total_tokens=text.input_length + text.output_length,
            ),
            ai_filter=[] if self._body.include_ai_filters else None,
        )
