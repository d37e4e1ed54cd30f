"""What the service offers: the endpoints of `hunmin_contracts.generation`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter
from hunmin_contracts.generation import GENERATE, MODELS, GenerateEvent, GenerateRequest, ModelList
from hunmin_contracts.schema import Empty
from hunmin_kit.web import serve

from hunmin_generation.models import Models


def routes(models: Models) -> APIRouter:
    """Mount every endpoint on these models."""
    router = APIRouter()

    @serve(router, GENERATE)
    async def generate(request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        async with aclosing(models.get(request.model).generate(request)) as events:
            async for event in events:
                yield GenerateEvent(event)

    @serve(router, MODELS)
    async def list_models(request: Empty) -> ModelList:
        return ModelList(models=[model.info for model in models.all()])

    return router
