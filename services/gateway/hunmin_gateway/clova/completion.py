"""Completions of a text: the request, the answer, and the way from one to the other. Pure: no I/O."""

import math

from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.generation import ChunkEvent, GenerateRequest
from hunmin_contracts.ids import AccountId
from pydantic import Field

from hunmin_gateway.clova.envelope import TEXT_EMPTY, Camel, clova_error
from hunmin_gateway.clova.parameters import FirstVersion
from hunmin_gateway.clova.text import StopReason, Text
from hunmin_gateway.exchange import Event
from hunmin_gateway.openai.utf8 import printable
from hunmin_gateway.public_schema import absent


class CompletionRequest(FirstVersion):
    """The body of `POST /v1/completions/{model}`."""

    text: str = Field(description="The prompt.")
    start: str | None = Field(default=None, description="What is put after `text`, before the model goes on.")
    restart: str | None = Field(default=None, description="What is put after what the model wrote.")
    include_tokens: bool | None = Field(default=None, description="Tell the tokens of prompt and text.")
    include_probs: bool | None = Field(default=None, description="Tell the probability of each token of the text.")

    def generate_request(self, account_id: AccountId, model: str, seed: int) -> GenerateRequest:
        """What to ask of the generation service."""
        prompt = self.text + (self.start or "")
        if not prompt:
            raise clova_error(
                ErrorCode.INVALID_PARAMETER, TEXT_EMPTY, "Parameter text: is empty. Send some.", param="text"
            )
        return GenerateRequest(
            account_id=account_id,
            model=model,
            prompt=prompt,
            max_tokens=self.length(),
            stop=self.stops(),
            logprobs=0 if self.include_tokens or self.include_probs else None,
            echo=bool(self.include_tokens),
            sampling=self.sampling(seed),
        )

    def writer(self, seed: int) -> "CompletionWriter":
        """What writes the answer."""
        return CompletionWriter(self, seed)


class CompletionToken(Camel):
    """A piece of a streamed text, with the counts so far."""

    text: str
    input_length: int
    output_length: int
    stop_reason: StopReason | None


class CompletionResult(Camel):
    """The whole answer: `text` is `inputText` and `outputText`, which has `start` before it and `restart` after it.

    `outputTokens` and `probs` are of what the model wrote; a part of a character is shown as `bytes:\\xec\\x98`.
    """

    text: str
    stop_reason: StopReason | None
    input_text: str
    input_length: int
    input_tokens: list[str] | None = Field(default=None, exclude_if=absent)
    output_text: str
    output_length: int
    output_tokens: list[str] | None = Field(default=None, exclude_if=absent)
    probs: list[float] | None = Field(default=None, exclude_if=absent)
    seed: int
    ai_filter: list[dict[str, str]] | None = Field(default=None, exclude_if=absent)
    ok: bool = True


class CompletionWriter:
    """Turns the events of one completion into pieces and an answer."""

    def __init__(self, body: CompletionRequest, seed: int) -> None:
        self._body = body
        self._seed = seed
        self._text = Text()

    def take(self, event: Event) -> CompletionToken | None:
        """Take note of an event; return the piece of text that it brings, if any."""
        self._text.take(event)
        if not isinstance(event, ChunkEvent) or not event.text:
            return None
        return CompletionToken(
            text=event.text,
            input_length=self._text.input_length,
            output_length=self._text.output_length,
            stop_reason=self._text.stop_reason,
        )

    def result(self) -> CompletionResult:
        """Return the whole answer."""
        body, text = self._body, self._text
        output = f"{body.start or ''}{text.content}{body.restart or ''}"
        tokens = text.tokens
        return CompletionResult(
            text=body.text + output,
            stop_reason=text.stop_reason,
            input_text=body.text,
            input_length=text.input_length,
            input_tokens=[printable(token) for token in text.prompt_tokens] if body.include_tokens else None,
            output_text=output,
            output_length=text.output_length,
            output_tokens=[printable(token) for token in tokens] if body.include_tokens else None,
            probs=[math.exp(token.logprob) for token in tokens if token.logprob is not None]
            if body.include_probs
            else None,
            seed=self._seed,
            ai_filter=None if body.include_ai_filters is False else [],  # here, and here alone, the default is true
        )
