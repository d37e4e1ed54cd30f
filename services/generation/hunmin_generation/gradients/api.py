"""The endpoints of `hunmin_contracts.gradients`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO

from fastapi import APIRouter
from hunmin_contracts.generation import Measurement
from hunmin_contracts.gradients import (
    GRADIENTS,
    MEASURE_GRADIENTS,
    GradientEvent,
    GradientProgress,
    GradientRequest,
    GradientResult,
)
from hunmin_kit.web import serve
from hunmin_modeling.gradient import Gradients

from hunmin_generation.gradients.answer import write_answer
from hunmin_generation.gradients.batch import read_batch
from hunmin_generation.gradients.models import GradientModel, GradientModels
from hunmin_generation.resolution import Resolver
from hunmin_generation.soft_prompts.api import mapped
from hunmin_generation.soft_prompts.library import HeldSoftPrompt
from hunmin_generation.usage import UsageEvents


def routes(resolver: Resolver, models: GradientModels, usage: UsageEvents) -> APIRouter:
    """Mount the endpoints."""
    router = APIRouter()

    async def read(
        request: GradientRequest, model: GradientModel, file: BinaryIO, named: HeldSoftPrompt | None
    ) -> Gradients:
        sent = mapped(file) if request.has_soft_prompt else None
        return await asyncio.to_thread(read_batch, request, model, sent, named)

    @serve(router, GRADIENTS)
    async def gradients(request: GradientRequest, file: BinaryIO) -> AsyncGenerator[GradientEvent, None]:
        async with (
            resolver.resolve(request.account_id, request.model) as target,
            usage.metered(request) as meter,
        ):
            model = models.get(target.model.name)
            batch = await read(request, model, file, target.soft_prompt)
            async with aclosing(model.worker.compute(batch)) as steps:
                async for used in steps:
                    meter.record(prompt_tokens=used.prompt_tokens, backward_tokens=used.backward_tokens)
                    yield GradientEvent(GradientProgress(usage=used))
            response = await asyncio.to_thread(write_answer, request, batch, model)
            yield GradientEvent(GradientResult(response=response))

    @serve(router, MEASURE_GRADIENTS)
    async def measure_gradients(request: GradientRequest, file: BinaryIO) -> Measurement:
        async with resolver.resolve(request.account_id, request.model) as target:
            examples = (await read(request, models.get(target.model.name), file, target.soft_prompt)).examples
            return target.model.measurement(
                target.soft_prompt,
                prompt_tokens=sum(len(example.prompt) for example in examples),
                backward_tokens=sum(example.length for example in examples),
            )

    return router
