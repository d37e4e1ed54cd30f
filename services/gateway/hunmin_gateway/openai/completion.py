"""Text completions of the OpenAI dialect: the request, the answer, and the way from one to the other. Pure: no I/O."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from hunmin_contracts.generation import ChunkEvent, GenerateRequest, PromptEvent, TokenLogprob, TopToken
from hunmin_contracts.ids import AccountId
from pydantic import BaseModel, Field
from pydantic import field_validator as validates
from pydantic_core import PydanticCustomError

from hunmin_gateway.exchange import Event
from hunmin_gateway.openai.head import Head, Usage
from hunmin_gateway.openai.parameters import MAX_LOGPROBS, Parameters
from hunmin_gateway.openai.pieces import by_index
from hunmin_gateway.openai.utf8 import CharacterCount, printable
from hunmin_gateway.public_schema import absent, only, said

MAX_PROMPTS = 128
MAX_COMPLETIONS = 128  # of all prompts: more than a model may queue would be "too much at present" for ever
DEFAULT_MAX_TOKENS = 16  # OpenAI's

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
TokenIdLists = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
Prompt = Annotated[
    str | TokenIds | Texts | TokenIdLists | None,
    said(f"a string, a list of token ids, or a list of 1 to {MAX_PROMPTS} strings or lists of token ids"),
]


class CompletionRequest(Parameters):
    """The body of `POST /v1/completions`."""

    prompt: Prompt = Field(default=None, description="Text, token ids, or a list of either; null is the empty text.")
    max_tokens: int | None = Field(default=None, ge=0, description="16 unless given, as OpenAI's.")
    echo: bool | None = Field(default=None, description="Return the prompt before the completion.")
    logprobs: int | None = Field(
        default=None, ge=0, le=MAX_LOGPROBS, description="Log-probability of each token, and of the k likeliest ones."
    )

    best_of: Annotated[None, only(1)] = None
    suffix: Annotated[None, only("")] = None

    @validates("prompt", mode="after")
    @classmethod
    def _is_no_flood(cls, prompt: Prompt, info: Any) -> Prompt:
        is_list = isinstance(prompt, list) and not isinstance(prompt[0], int)
        count = (len(prompt) if is_list and prompt is not None else 1) * (info.data.get("n") or 1)
        if count > MAX_COMPLETIONS:
            raise PydanticCustomError(
                "invalid_value",
                "with n choices each these are {count} completions; at most {most} are made in one request",
                {"count": count, "most": MAX_COMPLETIONS},
            )
        return prompt

    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one, in order."""
        prompt = self.prompt
        if prompt is None:
            return [""]
        if isinstance(prompt, str) or isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)

    def generate_requests(self, account_id: AccountId) -> list[GenerateRequest]:
        """What to ask of the generation service, one request per prompt."""
        return [
            GenerateRequest(
                account_id=account_id,
                model=self.model,
                prompt=prompt,
                n=self.choices,
                max_tokens=DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens,
                stop=self.stops(),
                logprobs=self.logprobs,
                echo=bool(self.echo),
                sampling=self.sampling(),
            )
            for prompt in self.prompts()
        ]


class Logprobs(BaseModel):
    """Lists of one length. `text_offset` counts characters from the start of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Choice(BaseModel):
    """One completion, or in a stream the next piece of one."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Completion(BaseModel):
    """The answer, and in a stream every chunk of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = Field(default=None, exclude_if=absent)


class CompletionWriter:
    """Turns events into choices: choice `j` of prompt `i` has index `i * n + j`, as OpenAI numbers them."""

    def __init__(self, request: CompletionRequest, head: Head) -> None:
        self._request = request
        self._head = head
        self._counts: dict[int, CharacterCount] = {}

    def pieces(self, number: int, event: Event) -> Iterator[Choice]:
        """Yield what `event` of prompt `number` adds."""
        first = number * self._request.choices
        if isinstance(event, PromptEvent) and self._request.echo:
            for index in range(first, first + self._request.choices):
                yield Choice(index=index, text=event.text or "", logprobs=self._logprobs(index, event.tokens))
                self._count(index).end_text()  # the completion is decoded by itself
        elif isinstance(event, ChunkEvent):
            index = first + event.index
            logprobs = self._logprobs(index, event.tokens)
            yield Choice(index=index, text=event.text, logprobs=logprobs, finish_reason=event.finish_reason)

    def chunk(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        """Return one chunk of a stream; the last one holds no choices but the usage."""
        return Completion(**self._head.fields(), choices=choices, usage=usage)

    def whole(self, pieces: list[Choice], usage: Usage) -> Completion:
        """Join all pieces into the answer that is not streamed."""
        return self.chunk([_joined(index, group) for index, group in by_index(pieces)], usage)

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> Logprobs | None:
        if self._request.logprobs is None:
            return None
        count = self._count(index)
        return Logprobs(
            tokens=[printable(token) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[_top(token) for token in tokens] if self._request.logprobs else None,
            text_offset=[count.advance(token) for token in tokens],
        )

    def _count(self, index: int) -> CharacterCount:
        return self._counts.setdefault(index, CharacterCount())


def _top(token: TokenLogprob) -> dict[str, float] | None:
    """Return the likeliest tokens and the chosen one, as OpenAI does; null where there is no probability."""
    if token.logprob is None:
        return None
    candidates: list[TokenLogprob | TopToken] = [*token.top, token]
    return {printable(candidate): candidate.logprob for candidate in candidates if candidate.logprob is not None}


def _joined(index: int, pieces: list[Choice]) -> Choice:
    parts = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    logprobs = None
    if parts:
        tops = [part.top_logprobs for part in parts if part.top_logprobs is not None]
        logprobs = Logprobs(
            tokens=list(chain.from_iterable(part.tokens for part in parts)),
            token_logprobs=list(chain.from_iterable(part.token_logprobs for part in parts)),
            top_logprobs=list(chain.from_iterable(tops)) if tops else None,
            text_offset=list(chain.from_iterable(part.text_offset for part in parts)),
        )
    text = "".join(piece.text for piece in pieces)
    return Choice(index=index, text=text, logprobs=logprobs, finish_reason=pieces[-1].finish_reason)
