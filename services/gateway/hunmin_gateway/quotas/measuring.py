"""Asks the generation service what an exchange may use at most, before any of it is made."""

import asyncio
from typing import Any

from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.generation import (
    MEASURE,
    MEASURE_EMBED,
    MEASURE_SCORE,
    EmbedRequest,
    GenerateRequest,
    Measurement,
    ScoreRequest,
)
from hunmin_contracts.gradients import MEASURE_GRADIENTS, GradientRequest
from hunmin_contracts.quotas import Purpose
from hunmin_kit.web import Client

from hunmin_gateway.exchange import AnyRequest, Exchange
from hunmin_gateway.quotas.amounts import Amounts

_ENDPOINTS: dict[type[AnyRequest], Endpoint[Any, Measurement]] = {
    GenerateRequest: MEASURE,
    ScoreRequest: MEASURE_SCORE,
    EmbedRequest: MEASURE_EMBED,
}


async def measure(exchange: Exchange[Any], generation: Client) -> tuple[Amounts, str]:
    """Return what the exchange takes at most, and the base model that serves it; raise what its calls would raise.

    The exchange is pinned to what was measured: a soft prompt that is promoted meanwhile must not change what is used.
    """

    async def ask(request: AnyRequest) -> Measurement:
        if isinstance(request, GradientRequest):
            return await generation.upload(MEASURE_GRADIENTS, request, exchange.file())
        return await generation.call(_ENDPOINTS[type(request)], request)

    first = await ask(exchange.requests[0])
    exchange.pin(first.reference)
    others = await asyncio.gather(*map(ask, exchange.requests[1:]))
    measured = [first, *others]
    if exchange.purpose is Purpose.GRADIENT:
        return Amounts(requests=1, backward_tokens=sum(one.backward_tokens for one in measured)), first.model
    tokens = sum(map(_tokens, exchange.requests, measured))
    return Amounts(requests=1, tokens=tokens), first.model


def _tokens(request: AnyRequest, measured: Measurement) -> int:
    completions = request.n if isinstance(request, GenerateRequest) else 0
    return measured.prompt_tokens + completions * measured.max_tokens
