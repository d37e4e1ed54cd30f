"""Log-likelihoods and embeddings: prompts from which nothing is generated, in the same batches as everything else."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    ContinuationScore,
    Embedding,
    EmbedRequest,
    EmbedResponse,
    Measurement,
    PromptEvent,
    ScoreRequest,
    ScoreResponse,
)

from hunmin_generation.engine.request import PRIORITIES, EngineRequest, Event, HiddenEvent
from hunmin_generation.models import Model
from hunmin_generation.soft_prompts.library import HeldSoftPrompt

# Of one call at a time in the engine, so that a long list leaves room in the queue for others.
_AT_ONCE = 32


@dataclass(frozen=True)
class _Read:
    """What a call comes to in tokens: the prompt that all share, what is counted of each request, and the requests."""

    prompt: list[int]
    parts: list[list[int]]
    requests: list[EngineRequest]

    @property
    def tokens(self) -> int:
        """How many are counted."""
        return len(self.prompt) + sum(map(len, self.parts))


async def score(model: Model, request: ScoreRequest, soft_prompt: HeldSoftPrompt | None) -> ScoreResponse:
    """Return the log-likelihood of each continuation; what the prompt has computed is shared by all of them."""
    read = await _read_score(model, request, soft_prompt)
    events = await _run(model, read.requests)
    return ScoreResponse(
        scores=[_continuation_score(one) for one in events],
        prompt_tokens=len(read.prompt),
        continuation_tokens=sum(map(len, read.parts)),
    )


async def measure_score(model: Model, request: ScoreRequest, soft_prompt: HeldSoftPrompt | None) -> Measurement:
    """Return what `score` counts."""
    read = await _read_score(model, request, soft_prompt)
    return model.measurement(soft_prompt, prompt_tokens=read.tokens)


async def embed(model: Model, request: EmbedRequest, soft_prompt: HeldSoftPrompt | None) -> EmbedResponse:
    """Return the mean hidden state of each input, its soft prompt's rows included, scaled to length 1."""
    read = await _read_embed(model, request, soft_prompt)
    events = await _run(model, read.requests)
    return EmbedResponse(
        embeddings=[_embedding(one, len(ids)) for one, ids in zip(events, read.parts, strict=True)],
    )


async def measure_embed(model: Model, request: EmbedRequest, soft_prompt: HeldSoftPrompt | None) -> Measurement:
    """Return what `embed` counts."""
    read = await _read_embed(model, request, soft_prompt)
    return model.measurement(soft_prompt, prompt_tokens=read.tokens)


async def _read_score(model: Model, request: ScoreRequest, soft_prompt: HeldSoftPrompt | None) -> _Read:
    """Encode it all; refuse what can never be served."""
    prompt = await model.encode(request.prompt, soft_prompt)
    if not prompt:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "The prompt is empty: a continuation follows at least one token.",
            param="prompt",
        )
    model.engine.max_tokens(_request(prompt, request, soft_prompt))  # or it would be the continuations' fault
    continuations = [await _ids(model, continuation) for continuation in request.continuations]
    requests = [
        _request(prompt + ids, request, soft_prompt, score_from=len(prompt), logprobs=0) for ids in continuations
    ]
    _check(model, requests, param="continuations")
    return _Read(prompt, continuations, requests)


async def _read_embed(model: Model, request: EmbedRequest, soft_prompt: HeldSoftPrompt | None) -> _Read:
    """Encode it all; refuse what can never be served."""
    prompts = [await model.encode(text, soft_prompt) for text in request.inputs]
    requests = [_request(ids, request, soft_prompt, embed=True) for ids in prompts]
    _check(model, requests, param="inputs")
    return _Read([], prompts, requests)


def _request(
    ids: list[int],
    asked: ScoreRequest | EmbedRequest,
    soft_prompt: HeldSoftPrompt | None,
    *,
    score_from: int | None = None,
    logprobs: int | None = None,
    embed: bool = False,
) -> EngineRequest:
    rows = soft_prompt.rows if soft_prompt is not None else None
    return EngineRequest(
        ids,
        max_tokens=0,
        salt=asked.account_id,
        soft_prompt=rows,
        score_from=score_from,
        logprobs=logprobs,
        embed=embed,
        priority=PRIORITIES[asked.priority],
    )


async def _ids(model: Model, text: str | list[int]) -> list[int]:
    """Encode a text that follows another: nothing is put before it."""
    ids = text if isinstance(text, list) else await model.encode_piece(text)
    if not ids:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, "A continuation has no tokens. Leave it out.", param="continuations"
        )
    return ids


def _check(model: Model, requests: Sequence[EngineRequest], *, param: str) -> None:
    """Refuse what can never be served, by its place in `param`: it costs nothing."""
    for number, request in enumerate(requests):
        try:
            model.engine.max_tokens(request)
        except HunminError as error:
            place = f"{param}.{number}"
            raise HunminError(error.code, f"{place}: {error.message}", **error.details | {"param": place}) from None


async def _run(model: Model, requests: Sequence[EngineRequest]) -> list[list[Event]]:
    """Run every request and return its events; the first that fails ends all."""
    generate = model.thread.generate
    room = asyncio.Semaphore(_AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_events(generate, request, room)) for request in requests]
    except* HunminError as failed:
        raise _first(failed) from None
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[HunminError]) -> HunminError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _events(
    generate: Callable[[EngineRequest], AsyncGenerator[Event, None]], request: EngineRequest, room: asyncio.Semaphore
) -> list[Event]:
    async with room, aclosing(generate(request)) as events:
        return [event async for event in events]


def _continuation_score(events: Sequence[Event]) -> ContinuationScore:
    (tokens,) = (event.tokens for event in events if isinstance(event, PromptEvent))
    total = math.fsum(token.logprob for token in tokens if token.logprob is not None)
    return ContinuationScore(logprob=total, mean_logprob=total / len(tokens), tokens=tokens)


def _embedding(events: Sequence[Event], tokens: int) -> Embedding:
    (mean,) = (event.mean for event in events if isinstance(event, HiddenEvent))
    length = math.sqrt(math.fsum(value * value for value in mean)) or 1.0
    return Embedding(vector=[value / length for value in mean], tokens=tokens)
