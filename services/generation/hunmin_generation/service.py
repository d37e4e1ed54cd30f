"""The composition root of the generation service: its settings, its models, its soft prompts."""

import asyncio
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from fastapi import FastAPI
from hunmin_contracts.errors import HunminError
from hunmin_contracts.events import SOFT_PROMPT
from hunmin_contracts.soft_prompts import IMPORT
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.run.errors import StartError
from pydantic import Field, model_validator

from hunmin_generation.backends.settings import RemoteBackend

if TYPE_CHECKING:
    from hunmin_kit.events import Events

    from hunmin_generation.gradients.models import GradientModels
    from hunmin_generation.models import Models
    from hunmin_generation.soft_prompts.library import SoftPrompts

_log = structlog.get_logger()


class GenerationSettings(Settings):
    """HUNMIN_GENERATION_…; what counts tokens, completions or bytes holds for each model."""

    port: int = 8082
    models: dict[str, Path] = Field(default={"starter": Path("training/models/starter")}, min_length=1)
    backends: dict[str, RemoteBackend] = {}  # what computes those of the models that this process does not
    # In float32 a greedy completion is the same whoever shares its batch; bfloat16 is faster, and near ties may fall
    # either way.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Linear layers in 8-bit integers: half the memory of bfloat16 and faster, a little worse (make bench-engine).
    int8: bool = False
    threads: int | None = Field(default=None, ge=1)  # None: one per core and 25M parameters
    max_batch_tokens: int = Field(default=512, ge=1)  # in one step, of prompts and completions
    max_running: int = Field(default=64, ge=1)  # completions computed at a time
    max_queue: int = Field(default=256, ge=0)  # completions waiting beside those
    block_size: int = Field(default=32, ge=1)  # tokens
    kv_bytes: int = Field(default=256 * 2**20, ge=1)
    max_prompt_characters: int = Field(default=400_000, ge=1)
    soft_prompt_bytes: int = Field(default=64 * 2**20, ge=1)  # of rows in memory, over all models
    gradient_threads: int | None = Field(default=None, ge=1)  # None: one per core
    max_gradient_tokens: int = Field(default=512, ge=1)  # in one micro-batch, and so of one example
    max_gradient_queue: int = Field(default=16, ge=0)  # batches waiting beside the one that is computed

    @model_validator(mode="after")
    def _check_budget(self) -> "GenerationSettings":
        if self.max_running > self.max_batch_tokens:
            raise ValueError("max_running exceeds max_batch_tokens: each running completion needs a token of a step")
        return self

    @model_validator(mode="after")
    def _check_backends(self) -> "GenerationSettings":
        if unknown := sorted(self.backends.keys() - self.models.keys()):
            raise ValueError(f"backends names {', '.join(unknown)}, but models names no folder for it")
        return self


@asynccontextmanager
async def build(platform: Platform, settings: GenerationSettings) -> AsyncGenerator[FastAPI, None]:
    """Load every model, then offer them."""
    try:
        # On a thread that ends with it, and its OpenMP team too: while there are more such threads than cores, a team's
        # workers no longer wait awake between two products, and a step of 110M parameters takes half as long again.
        with ThreadPoolExecutor(max_workers=1) as loader:
            models = await asyncio.get_running_loop().run_in_executor(loader, _load, platform, settings)
    except HunminError as error:
        raise StartError(f"A folder in HUNMIN_GENERATION_MODELS cannot be served. {error.message}") from None
    from hunmin_kit.events import Hearing

    from hunmin_generation import api
    from hunmin_generation.gradients import api as gradients_api
    from hunmin_generation.resolution import Resolver
    from hunmin_generation.soft_prompts import api as soft_prompts_api
    from hunmin_generation.usage import UsageEvents

    events = platform.events()
    usage = UsageEvents(events, platform.database())
    soft_prompts = _soft_prompts(platform, events, models, settings)
    gradient_models = _gradient_models(platform, models, settings)
    resolver = Resolver(models, soft_prompts)

    async def check_ready() -> None:
        await models.check_ready()
        await gradient_models.check_ready()

    models.start()
    gradient_models.start()
    try:
        app = platform.app(title="Generation", ready=check_ready, upload_paths=[IMPORT.path])
        app.include_router(api.routes(models, resolver, usage))
        app.include_router(soft_prompts_api.routes(soft_prompts))
        app.include_router(gradients_api.routes(resolver, gradient_models, usage))
        async with events.running(hearings=[Hearing(SOFT_PROMPT, soft_prompts.hear)]):
            yield app
    finally:
        await gradient_models.close()
        await models.close()
        await usage.finish()


def _preload() -> None:
    import hunmin_generation.api
    import hunmin_generation.gradients.api
    import hunmin_generation.models
    import hunmin_generation.soft_prompts.api  # noqa: F401


def _load(platform: Platform, settings: GenerationSettings) -> "Models":
    # Imported here: torch and transformers take seconds, and whoever only asks for the settings must not wait for them.
    import torch

    from hunmin_generation.engine.engine import EngineLimits
    from hunmin_generation.metrics import EngineMetrics
    from hunmin_generation.models import ModelLimits, Models, Observers

    limits = ModelLimits(
        engine=EngineLimits(
            max_batch_tokens=settings.max_batch_tokens,
            max_running=settings.max_running,
            block_size=settings.block_size,
            kv_bytes=settings.kv_bytes,
        ),
        dtype=getattr(torch, settings.dtype),
        int8=settings.int8,
        threads=settings.threads,
        max_queue=settings.max_queue,
        max_prompt_characters=settings.max_prompt_characters,
    )
    metrics = EngineMetrics(platform.registry)
    observers = Observers(on_failure=_log_failure, on_first_token=metrics.observe_first_token)
    models = Models(settings.models, limits, observers, settings.backends)
    for model in models.all():
        if model.is_native:
            metrics.watch(model.name, model.engine)
        _log.info("model.loaded", model=model.name, digest=model.info.digest, max_length=model.info.context_length)
    return models


def _soft_prompts(
    platform: Platform, events: "Events", models: "Models", settings: GenerationSettings
) -> "SoftPrompts":
    from hunmin_generation.soft_prompts.library import BaseModel, SoftPrompts
    from hunmin_generation.soft_prompts.metrics import ResidentMetrics
    from hunmin_generation.soft_prompts.registry import Registry
    from hunmin_generation.soft_prompts.residents import Residents

    residents = Residents(settings.soft_prompt_bytes, max_waiting=settings.max_queue)
    ResidentMetrics(platform.registry, residents)
    bases = {model.name: BaseModel(model.info, model.dtype) for model in models.all()}
    return SoftPrompts(Registry(platform.database(), events), platform.blobs(), residents, bases)


def _gradient_models(platform: Platform, models: "Models", settings: GenerationSettings) -> "GradientModels":
    from hunmin_generation.gradients.metrics import GradientMetrics
    from hunmin_generation.gradients.models import GradientLimits, GradientModel, GradientModels

    limits = GradientLimits(
        max_tokens=settings.max_gradient_tokens,
        max_characters=settings.max_prompt_characters,
        max_queue=settings.max_gradient_queue,
        threads=settings.gradient_threads or os.cpu_count() or 1,
    )
    gradient_models = GradientModels(
        GradientModel(model.info, model.engine.checkpoint, model.tokenizer, limits, partial(_log_failure, model.name))
        for model in models.all()
        if model.is_native
    )
    GradientMetrics(platform.registry, gradient_models)
    return gradient_models


def _log_failure(model: str, error: Exception) -> None:
    _log.error("engine.failed", model=model, exc_info=error)


SERVICE = Service(
    name="generation",
    settings=GenerationSettings,
    build=build,
    migrations="hunmin_generation.migrations",
    preload=_preload,
)
