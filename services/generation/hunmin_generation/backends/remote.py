"""What the remote backends share: their tokens go through the same text, stops and counts as the engine's own.

Ids come back from the server; what they mean as text, where a stop string ends them and how many there are is decided
here, so that an answer does not depend on where it was computed.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_modeling.outline import Outline, outline

from hunmin_generation.backends.language_model import Facts
from hunmin_generation.backends.server import RemoteServer
from hunmin_generation.engine.admission import max_tokens
from hunmin_generation.engine.request import EngineRequest, Event, Generation
from hunmin_generation.engine.sampler import Choice, Scored
from hunmin_generation.engine.text import TokenText


@dataclass(frozen=True)
class Delta:
    """The next tokens of completion `index`, in order. `scored` has their log-probabilities if they were asked for.

    `prompt_scores` are those of the prompt from position `scored_from` on. `prompt_tokens` is how long the server says
    the prompt is, if it says so; `is_last` that it has ended this completion.
    """

    index: int
    tokens: list[int]
    scored: list[Scored] = field(default_factory=list)
    prompt_scores: list[Scored | None] = field(default_factory=list)
    prompt_tokens: int | None = None
    is_last: bool = False


class RemoteModel(ABC):
    """A model that another server computes; `folder` is its whole checkpoint, of which only the facts are read."""

    kind: str

    def __init__(
        self,
        name: str,
        folder: Path,
        vocabulary: TokenText,
        server: RemoteServer,
        *,
        on_first_token: Callable[[float], None],
    ) -> None:
        """Read the facts in `folder`; HunminError if it cannot be used."""
        self._name = name
        self._vocabulary = vocabulary
        self._server = server
        self._on_first_token = on_first_token
        self._outline: Outline = outline(folder)
        self._end_ids = self._outline.end_ids | {vocabulary.eos_id}
        self._vocab_size = min(self._outline.vocab_size, vocabulary.vocab_size)
        self.facts = Facts(
            digest=self._outline.digest,
            d_model=self._outline.d_model,
            embedding_std=float(self._outline.embeddings.float().std()),
            architecture=self._outline.architecture,
            context_length=self._outline.context_length,
            vocab_size=self._outline.vocab_size,
            created=self._outline.created,
        )

    def start(self) -> None:  # noqa: B027  # the other backend has a thread to start
        """Nothing is to be started here."""

    async def close(self) -> None:
        """Hang up on the server."""
        await self._server.close()

    @abstractmethod
    async def check_ready(self) -> None:
        """Raise `unavailable` if the server cannot serve this model now."""

    @abstractmethod
    def _check(self, request: EngineRequest, text: str | None) -> None:
        """Refuse what the server cannot do exactly."""

    @abstractmethod
    def _deltas(self, request: EngineRequest, text: str | None, limit: int) -> AsyncGenerator[Delta, None]:
        """Yield what the server generates, at most `limit` tokens for each completion."""

    def admit(self, request: EngineRequest, *, text: str | None) -> int:
        """Return how many tokens each completion may have; HunminError if the request can never be served."""
        limit = max_tokens(request, max_length=self.facts.context_length, vocab_size=self._vocab_size)
        if request.embed:
            raise self._refusal("embeddings", "model")
        self._check(request, text)
        return limit

    async def generate(self, request: EngineRequest, *, text: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`."""
        limit = self.admit(request, text=text)
        started_at = time.monotonic()
        events: list[Event | HunminError] = []
        generation = Generation(
            request, events.append, max_tokens=limit, end_ids=self._end_ids, vocabulary=self._vocabulary
        )
        if limit == 0 and request.scored_from is None:
            self._end_empty(generation)
            for event in _drained(events):
                yield event
            return
        async with aclosing(self._deltas(request, text, limit)) as deltas:
            async for delta in deltas:
                self._take(generation, delta, limit)
                if not generation.has_token:
                    generation.has_token = True
                    self._on_first_token(time.monotonic() - started_at)
                for event in _drained(events):
                    yield event
                if generation.is_over:
                    return
        raise self._server.unavailable("ended its answer too early")

    def _take(self, generation: Generation, delta: Delta, limit: int) -> None:
        prompt = generation.request.prompt
        if delta.prompt_tokens is not None and delta.prompt_tokens != len(prompt):
            raise self._server.unavailable(
                f"counts {delta.prompt_tokens} tokens in a prompt of {len(prompt)}: the folder of {self._name} is not "
                "that of the model it serves"
            )
        if delta.prompt_scores:
            generation.add_prompt_scores((generation.request.scored_from or 1) - 1, delta.prompt_scores)
        generation.emit_prompt()
        if limit == 0:
            self._end_empty(generation)
            return
        completion = generation.completions[delta.index]
        scored: list[Scored | None] = [*delta.scored] or [None] * len(delta.tokens)
        for token, score in zip(delta.tokens, scored, strict=True):
            if completion.finish_reason is not None:
                break
            if not 0 <= token < self._vocab_size:
                raise self._server.unavailable(f"generated token {token}, which {self._name} does not have")
            chunk = completion.advance(Choice(token, score))
            if chunk is not None:
                generation.emit(chunk)
        if delta.is_last and completion.finish_reason is None:
            raise self._server.unavailable(
                f"ended a text before its end: its end tokens are not those in the folder of {self._name}"
            )
        generation.close()

    def _end_empty(self, generation: Generation) -> None:
        """End a request that wanted no tokens."""
        generation.emit_prompt()
        for completion in generation.completions:
            generation.emit(completion.end_unsampled())
        generation.close()

    def _refusal(self, what: str, param: str) -> HunminError:
        return HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"{self._name} is computed by {self.kind}, which cannot do this exactly: {what}. Leave it out, or use a "
            "model that is computed here.",
            param=param,
        )


def _drained(events: list[Event | HunminError]) -> list[Event]:
    found = [event for event in events if not isinstance(event, HunminError)]
    events.clear()
    return found
