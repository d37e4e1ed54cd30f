"""Log-likelihoods and embeddings: prompts from which nothing is generated, in the same batches as everything else."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    ContinuationScore,
    Embedding,
    EmbedRequest,
    EmbedResponse,
    PromptEvent,
    ScoreRequest,
    ScoreResponse,
)
from hunmin_contracts.ids import AccountId

from hunmin_generation.engine.request import EngineRequest, Event, HiddenEvent
from hunmin_generation.models import Model
from hunmin_generation.soft_prompts.library import HeldSoftPrompt

# Of one call at a time in the engine, so that a long list leaves room in the queue for others.
_AT_ONCE = 32


async def score(model: Model, request: ScoreRequest, soft_prompt: HeldSoftPrompt | None) -> ScoreResponse:
    """Return the log-likelihood of each continuation; what the prompt has computed is shared by all of them."""
    prompt = await model.encode(request.prompt, soft_prompt)
    if not prompt:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "The prompt is empty: a continuation follows at least one token.",
            param="prompt",
        )
    model.engine.max_tokens(
        _request(prompt, request.account_id, soft_prompt)
    )  # or it would be the continuations' fault
    continuations = [await _ids(model, continuation) for continuation in request.continuations]
    events = await _run(
        model,
        [
            _request(prompt + ids, request.account_id, soft_prompt, score_from=len(prompt), logprobs=0)
            for ids in continuations
        ],
        param="continuations",
    )
    return ScoreResponse(
        scores=[_continuation_score(one) for one in events],
        prompt_tokens=len(prompt),
        continuation_tokens=sum(map(len, continuations)),
    )


async def embed(model: Model, request: EmbedRequest, soft_prompt: HeldSoftPrompt | None) -> EmbedResponse:
    """Return the mean hidden state of each input, its soft prompt's rows included, scaled to length 1."""
    prompts = [await model.encode(text, soft_prompt) for text in request.inputs]
    requests = [_request(ids, request.account_id, soft_prompt, embed=True) for ids in prompts]
    events = await _run(model, requests, param="inputs")
    return EmbedResponse(
        embeddings=[_embedding(one, len(ids)) for one, ids in zip(events, prompts, strict=True)],
    )


def _request(
    ids: list[int],
    account_id: AccountId,
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
        salt=account_id,
        soft_prompt=rows,
        score_from=score_from,
        logprobs=logprobs,
        embed=embed,
    )


async def _ids(model: Model, text: str | list[int]) -> list[int]:
    """Encode a text that follows another: nothing is put before it."""
    ids = text if isinstance(text, list) else await model.encode_piece(text)
    if not ids:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, "A continuation has no tokens. Leave it out.", param="continuations"
        )
    return ids


async def _run(model: Model, requests: Sequence[EngineRequest], *, param: str) -> list[list[Event]]:
    """Run every request and return its events; the first that fails ends all. `param`: what they were sent in."""
    generate = model.thread.generate
    for number, request in enumerate(requests):  # one that can never be served costs nothing
        try:
            model.engine.max_tokens(request)
        except HunminError as error:
            place = f"{param}.{number}"
            raise HunminError(error.code, f"{place}: {error.message}", **error.details | {"param": place}) from None
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
