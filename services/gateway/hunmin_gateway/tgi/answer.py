"""Answers of the TGI dialect, and the way from events to them. Pure: no I/O."""

import codecs
from collections.abc import Iterator
from typing import Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ChunkEvent, PromptEvent, TokenLogprob, TopToken
from pydantic import BaseModel, Field

from hunmin_gateway.exchange import Event
from hunmin_gateway.public_schema import absent
from hunmin_gateway.tgi.parameters import Ask

FinishReason = Literal["length", "eos_token", "stop_sequence"]


class PrefillToken(BaseModel):
    """A token of the prompt; the first has no log-probability."""

    id: int
    text: str
    logprob: float | None


class Token(BaseModel):
    """A token of the text. `text` is what it completes: empty for a part of a character that others complete."""

    id: int
    text: str
    logprob: float | None
    special: bool


class StreamDetails(BaseModel):
    """How a stream ended."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamPiece(BaseModel):
    """One token, and with the last one the whole text."""

    index: int
    token: Token
    top_tokens: list[Token] | None = Field(default=None, exclude_if=absent)
    generated_text: str | None = None
    details: StreamDetails | None = None


class Sequence(BaseModel):
    """One text with its tokens."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | None = Field(default=None, exclude_if=absent)


class OtherSequence(Sequence):
    """A text that was not the best."""

    generated_text: str


class Details(Sequence):
    """The best text's tokens, and the other texts."""

    best_of_sequences: list[OtherSequence] | None = Field(default=None, exclude_if=absent)


class Answer(BaseModel):
    """The answer that is not streamed."""

    generated_text: str
    details: Details | None = Field(default=None, exclude_if=absent)


class Text:
    """One text that grows by events."""

    def __init__(self, ask: Ask, index: int) -> None:
        self._ask = ask
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ask.inputs if ask.parameters.return_full_text else ""
        self._seed = None if ask.seed is None else ask.seed + index
        self.tokens: list[Token] = []
        self.tops: list[list[Token]] = []
        self._end: ChunkEvent | None = None

    def take(self, chunk: ChunkEvent) -> list[Token]:
        """Add what `chunk` brings, and return its tokens."""
        self._text += chunk.text + (chunk.stop or "")
        if chunk.finish_reason is not None:
            self._end = chunk
        found = [*chunk.tokens, *chunk.withheld]
        tokens = [self._token(token) for token in found]
        self.tokens += tokens
        self.tops += [[_candidate(top) for top in token.top] for token in found]
        return tokens

    @property
    def generated_text(self) -> str:
        """The text so far, after the prompt if that was asked for, with the stop string that ended it."""
        return self._text

    @property
    def is_over(self) -> bool:
        """Whether the last chunk has come."""
        return self._end is not None

    @property
    def mean_logprob(self) -> float:
        """By which TGI chooses the best text."""
        known = [token.logprob for token in self.tokens if token.logprob is not None]
        return sum(known) / len(known) if known else float("-inf")

    def stream_details(self, input_length: int) -> StreamDetails:
        """How it ended, for the last piece of a stream."""
        end = self._ended()
        return StreamDetails(
            finish_reason=_reason(end),
            generated_tokens=end.completion_tokens,
            seed=self._seed,
            input_length=input_length,
        )

    def sequence(self, prefill: list[PrefillToken]) -> Sequence:
        """Describe it with its tokens."""
        end = self._ended()
        return Sequence(
            finish_reason=_reason(end),
            generated_tokens=end.completion_tokens,
            seed=self._seed,
            prefill=prefill,
            tokens=self.tokens,
            top_tokens=self.tops if self._ask.parameters.top_n_tokens else None,
        )

    def _ended(self) -> ChunkEvent:
        if self._end is None:
            raise HunminError(ErrorCode.INTERNAL, "The model stopped before the end of a text. Send the request again.")
        return self._end

    def _token(self, token: TokenLogprob) -> Token:
        special = is_special(token)
        text = token.text if special else self._decoder.decode(bytes(token.bytes))
        return Token(id=token.id, text=text, logprob=token.logprob, special=special)


class Writer:
    """Turns the events of one request into an answer or into the pieces of a stream."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._texts = [Text(ask, index) for index in range(ask.choices)]
        self._prefill: list[PrefillToken] = []
        self._input_length = 0
        self._count = 0

    def take(self, event: Event) -> list[Token]:
        """Take note of an event, and return the tokens that it brought."""
        match event:
            case PromptEvent():
                self._input_length = event.prompt_tokens
                self._prefill = [
                    PrefillToken(id=token.id, text=token.text, logprob=token.logprob) for token in event.tokens
                ]
            case ChunkEvent():
                return self._texts[event.index].take(event)
        return []

    def pieces(self, event: Event) -> Iterator[StreamPiece]:
        """Yield a piece for each token of `event`; the last one of the text carries it whole."""
        text, tokens = self._texts[0], self.take(event)
        if isinstance(event, ChunkEvent) and text.is_over and not tokens:
            raise HunminError(ErrorCode.INTERNAL, "The model did not tell the last token of its text.")
        for place, token in enumerate(tokens, start=1):
            self._count += 1
            piece = StreamPiece(index=self._count, token=token)
            if self._ask.parameters.top_n_tokens:
                piece.top_tokens = text.tops[self._count - 1]
            if text.is_over and place == len(tokens):
                piece.generated_text = text.generated_text
                if self._ask.parameters.details:
                    piece.details = text.stream_details(self._input_length)
            yield piece

    def answer(self) -> Answer:
        """Return the best text, with details if they were asked for."""
        best = max(self._texts, key=lambda text: text.mean_logprob)
        if not self._ask.parameters.has_details:
            return Answer(generated_text=best.generated_text)
        others = [
            OtherSequence(**_fields(text.sequence(self._prefill)), generated_text=text.generated_text)
            for text in self._texts
            if text is not best
        ]
        details = Details(**_fields(best.sequence(self._prefill)), best_of_sequences=others or None)
        return Answer(generated_text=best.generated_text, details=details)


def is_special(token: TokenLogprob | TopToken) -> bool:
    """Tell a token that stands for no text, such as the end token."""
    return not token.bytes


def _candidate(token: TopToken) -> Token:
    return Token(id=token.id, text=token.text, logprob=token.logprob, special=is_special(token))


def _fields(sequence: Sequence) -> dict[str, object]:
    return {name: getattr(sequence, name) for name in Sequence.model_fields}


def _reason(end: ChunkEvent) -> FinishReason:
    if end.finish_reason == "length":
        return "length"
    return "eos_token" if end.stop is None else "stop_sequence"
