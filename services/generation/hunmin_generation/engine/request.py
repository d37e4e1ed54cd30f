"""A request in the engine: its completions and their events. Must not know the scheduler."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from hunmin_contracts.errors import HunminError
from hunmin_contracts.generation import (
    ChunkEvent,
    FinishReason,
    Priority,
    PromptEvent,
    Sampling,
    TokenLogprob,
    TopToken,
    UsageEvent,
)
from hunmin_modeling.soft_prompt import SoftPromptRows
from torch import Tensor

from hunmin_generation.engine.blocks import root_key
from hunmin_generation.engine.sampler import Choice, Draw, Scored
from hunmin_generation.engine.sequence import Sequence
from hunmin_generation.engine.text import StopText, TokenText


@dataclass(frozen=True)
class HiddenEvent:
    """The mean [d_model] of the last layer's hidden states over the prompt's tokens."""

    mean: list[float]
    type: Literal["hidden"] = "hidden"


Event = PromptEvent | ChunkEvent | HiddenEvent | UsageEvent
Sink = Callable[[Event | HunminError], None]
PRIORITIES: Mapping[Priority, int] = MappingProxyType({"interactive": 0, "batch": 1})  # lower goes first


@dataclass(frozen=True)
class EngineRequest:
    """What to generate, in tokens; the fields mean what they mean in contracts' GenerateRequest.

    An id -1 - k in `prompt` is row k of `soft_prompt`. Keys and values are shared with requests of one `salt` only.
    `score_from` asks for the log-probabilities of the prompt's tokens from that position on, 1 at least; `embed` for
    its hidden states. Lower `priority` goes first. `ignore_end` goes on after an end token, for benchmarks.
    """

    prompt: list[int]
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    salt: str = ""
    soft_prompt: SoftPromptRows | None = None
    score_from: int | None = None
    embed: bool = False
    priority: int = 0
    ignore_end: bool = False

    @property
    def scored_from(self) -> int | None:
        """From which position on the prompt is scored, if at all."""
        return 1 if self.score_from is None and self.echo and self.logprobs is not None else self.score_from


class Completion:
    """One of a request's completions."""

    def __init__(
        self, index: int, draw: Draw, *, stop: tuple[str, ...], end_ids: frozenset[int], vocabulary: TokenText
    ) -> None:
        self.index = index
        self.draw = draw
        self.finish_reason: FinishReason | None = None
        self._end_ids = end_ids
        self._vocabulary = vocabulary
        self._text = StopText(vocabulary.decoder(), stop)
        self._unreported: deque[tuple[int, TokenLogprob]] = deque()  # with the place in the text where the token begins

    @property
    def sequence(self) -> Sequence:
        """Its token ids and their progress."""
        return self.draw.sequence

    def advance(self, choice: Choice) -> ChunkEvent | None:
        """Take the next token, and return the text and tokens that can be shown with it, if any."""
        token = choice.token
        if token is None:
            raise ValueError("the model's logits are not numbers")
        self.sequence.tokens.append(token)
        if token in self._end_ids:
            return self._end("stop", self._text.finish(), end=choice.scored)
        begin = self._text.decoded_length
        text = self._text.push(token)
        if choice.scored is not None:
            self._unreported.append((begin, describe(choice.scored, self._vocabulary)))
        if self._text.is_stopped:
            return self._end("stop", text)
        if len(self.sequence.tokens) >= self.sequence.max_length:
            text += self._text.finish()
            return self._end("stop" if self._text.is_stopped else "length", text)
        tokens = self._reported() if self._unreported else []
        if not text and not tokens:
            return None
        return ChunkEvent(index=self.index, text=text, completion_tokens=self.sequence.completion_length, tokens=tokens)

    def end_unsampled(self) -> ChunkEvent:
        """End a completion of no tokens, whose prompt alone was wanted."""
        return self._end("length", "")

    def _end(self, reason: FinishReason, text: str, *, end: Scored | None = None) -> ChunkEvent:
        self.finish_reason = reason
        tokens = self._reported()
        withheld = [token for _, token in self._unreported]
        if end is not None:
            withheld.append(describe(end, self._vocabulary))
        return ChunkEvent(
            index=self.index,
            text=text,
            completion_tokens=self.sequence.completion_length,
            tokens=tokens,
            withheld=withheld,
            finish_reason=reason,
            stop=self._text.stop,
        )

    def _reported(self) -> list[TokenLogprob]:
        """Take the tokens that begin in the released text, or, at the end, whose text was not cut off."""
        shown = self._text.released_length
        tokens = []
        while self._unreported:
            begin, token = self._unreported[0]
            is_whole = shown == self._text.decoded_length
            if begin >= shown and not is_whole:
                break
            tokens.append(token)
            self._unreported.popleft()
        return tokens


class Generation:
    """A request being served. Its events go to `sink` in order: prompt, chunks, usage; or an error, last."""

    def __init__(
        self,
        request: EngineRequest,
        sink: Sink,
        *,
        max_tokens: int,
        end_ids: frozenset[int],
        vocabulary: TokenText,
    ) -> None:
        self.request = request
        self.added_at = time.monotonic()
        self.has_token = False
        self.is_over = False
        self.prompt_scores: list[Scored | None] = []
        self._hidden_sum: Tensor | None = None
        self._sink = sink
        self._vocabulary = vocabulary
        self._early: list[ChunkEvent] | None = []  # chunks that wait for the prompt event
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
        self.completions: list[Completion] = []
        for index in range(request.n):
            sequence = Sequence.of(
                request.prompt,
                max_tokens=max_tokens,
                root=root_key(request.salt, request.soft_prompt.key if request.soft_prompt is not None else ""),
                reusable=_reusable(request, index),
                shared=next((at for at, token in enumerate(request.prompt) if token >= 0), len(request.prompt)),
                priority=request.priority,
            )
            draw = Draw(sequence, request.sampling, seed + index, request.logprobs)
            ends = frozenset() if request.ignore_end else end_ids
            self.completions.append(Completion(index, draw, stop=request.stop, end_ids=ends, vocabulary=vocabulary))

    @property
    def _lacks_scores(self) -> bool:
        scored_from = self.request.scored_from
        return scored_from is not None and len(self.prompt_scores) < len(self.request.prompt) - scored_from

    def scored_from(self, completion: Completion) -> int | None:
        """Return from where on `completion` is to score the prompt: the first one does, until all is scored."""
        return self.request.scored_from if completion.index == 0 and self._lacks_scores else None

    def add_prompt_scores(self, start: int, scores: list[Scored | None]) -> None:
        """Take the scores that follow tokens from `start` on, less those that a preempted sequence repeats."""
        first = max(0, start + 1 - (self.request.scored_from or 0))
        self.prompt_scores += scores[max(0, len(self.prompt_scores) - first) :]

    def add_hidden(self, start: int, hidden_sum: Tensor) -> None:
        """Take the sum of the hidden states of tokens from `start` on; a preempted sequence begins again."""
        self._hidden_sum = hidden_sum if start == 0 or self._hidden_sum is None else self._hidden_sum + hidden_sum

    def emit(self, chunk: ChunkEvent) -> None:
        """Send a chunk, after the prompt event."""
        if self._early is None:
            self._sink(chunk)
        else:
            self._early.append(chunk)

    def emit_prompt(self) -> None:
        """Send the prompt event as soon as all that it tells is known, once."""
        prompt = self.request.prompt
        if self._early is None or self._lacks_scores:
            return
        echo = self.request.echo
        text = self._vocabulary.decode([token for token in prompt if token >= 0]) if echo else None
        tokens: list[TokenLogprob] = []
        if self.request.scored_from is not None:
            tokens = [describe(scored, self._vocabulary) for scored in self.prompt_scores if scored is not None]
            if echo and prompt[0] >= 0:
                tokens.insert(0, TokenLogprob(**_spelt(prompt[0], self._vocabulary), logprob=None))
        self._sink(PromptEvent(prompt_tokens=len(prompt), text=text, tokens=tokens))
        early, self._early = self._early, None
        for chunk in early:
            self._sink(chunk)

    def close(self) -> bool:
        """Send the usage if every completion has ended, and say whether that is so."""
        if self.is_over or any(completion.finish_reason is None for completion in self.completions):
            return False
        self.is_over = True
        if self._hidden_sum is not None:
            self._sink(HiddenEvent((self._hidden_sum / len(self.request.prompt)).tolist()))
        total = sum(completion.sequence.completion_length for completion in self.completions)
        self._sink(UsageEvent(prompt_tokens=len(self.request.prompt), completion_tokens=total))
        return True

    def fail(self, error: HunminError) -> None:
        """Send an error, which is the end."""
        if not self.is_over:
            self.is_over = True
            self._sink(error)


def _reusable(request: EngineRequest, index: int) -> int | None:
    """Return how many first tokens of completion `index` need not be run for what is wanted of them; None: all."""
    if request.embed:
        return 0
    return request.scored_from - 1 if index == 0 and request.scored_from is not None else None


def describe(scored: Scored, vocabulary: TokenText) -> TokenLogprob:
    """Spell out a token and its candidates."""
    top = [TopToken(**_spelt(token, vocabulary), logprob=logprob) for token, logprob in scored.top]
    return TokenLogprob(**_spelt(scored.token, vocabulary), logprob=scored.logprob, top=top)


def _spelt(token: int, vocabulary: TokenText) -> dict[str, Any]:
    return {"id": token, "text": vocabulary.token_text(token), "bytes": list(vocabulary.token_bytes(token))}
