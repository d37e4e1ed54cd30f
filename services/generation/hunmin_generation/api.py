"""What the service offers: the endpoints of `hunmin_contracts.generation`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter
from hunmin_contracts.generation import (
    EMBED,
    GENERATE,
    MEASURE,
    MEASURE_EMBED,
    MEASURE_SCORE,
    MODELS,
    SCORE,
    EmbedRequest,
    EmbedResponse,
    GenerateEvent,
    GenerateRequest,
    Measurement,
    ModelList,
    ScoreRequest,
    ScoreResponse,
)
from hunmin_contracts.schema import Empty
from hunmin_kit.web import serve

from hunmin_generation import scoring
from hunmin_generation.models import Models
from hunmin_generation.resolution import Resolver
from hunmin_generation.usage import UsageEvents


def routes(models: Models, resolver: Resolver, usage: UsageEvents) -> APIRouter:
    """Mount every endpoint on these models."""
    router = APIRouter()

    @serve(router, GENERATE)
    async def generate(request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        async with (
            resolver.resolve(request.account_id, request.model) as target,
            usage.metered(request) as meter,
            aclosing(target.model.generate(request, target.soft_prompt)) as events,
        ):
            async for event in events:
                meter.count(event)
                yield GenerateEvent(event)

    @serve(router, SCORE)
    async def score(request: ScoreRequest) -> ScoreResponse:
        async with (
            resolver.resolve(request.account_id, request.model) as target,
            usage.metered(request) as meter,
        ):
            response = await scoring.score(target.model, request, target.soft_prompt)
            meter.record(prompt_tokens=response.prompt_tokens + response.continuation_tokens)
            return response

    @serve(router, EMBED)
    async def embed(request: EmbedRequest) -> EmbedResponse:
        async with (
            resolver.resolve(request.account_id, request.model) as target,
            usage.metered(request) as meter,
        ):
            response = await scoring.embed(target.model, request, target.soft_prompt)
            meter.record(prompt_tokens=sum(embedding.tokens for embedding in response.embeddings))
            return response

    @serve(router, MEASURE)
    async def measure(request: GenerateRequest) -> Measurement:
        async with resolver.resolve(request.account_id, request.model) as target:
            return await target.model.measure(request, target.soft_prompt)

    @serve(router, MEASURE_SCORE)
    async def measure_score(request: ScoreRequest) -> Measurement:
        async with resolver.resolve(request.account_id, request.model) as target:
            return await scoring.measure_score(target.model, request, target.soft_prompt)

    @serve(router, MEASURE_EMBED)
    async def measure_embed(request: EmbedRequest) -> Measurement:
        async with resolver.resolve(request.account_id, request.model) as target:
            return await scoring.measure_embed(target.model, request, target.soft_prompt)

    @serve(router, MODELS)
    async def list_models(request: Empty) -> ModelList:
        return ModelList(models=[model.info for model in models.all()])

    return router
