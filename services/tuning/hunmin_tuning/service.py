"""The composition root of the tuning service: its settings, its datasets."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from hunmin_contracts.datasets import UPLOAD
from hunmin_contracts.errors import HunminError
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.run.errors import StartError
from pydantic import Field


class TuningSettings(Settings):
    """HUNMIN_TUNING_…"""

    port: int = 8083
    models: dict[str, Path] = Field(default={"starter": Path("training/models/starter")}, min_length=1)
    max_dataset_rows: int = Field(default=2_000_000, ge=1)


@asynccontextmanager
async def build(platform: Platform, settings: TuningSettings) -> AsyncGenerator[FastAPI, None]:
    """Read what must be known of every model, then offer datasets."""
    # Imported here: SQLAlchemy and tokenizers take a while, and whoever only asks for the settings must not wait.
    from hunmin_tuning.datasets import api as datasets_api
    from hunmin_tuning.datasets.bounds import Bounds
    from hunmin_tuning.datasets.library import Datasets
    from hunmin_tuning.datasets.models import load_models
    from hunmin_tuning.datasets.registry import Registry

    try:
        models = await asyncio.to_thread(load_models, settings.models)
    except HunminError as error:
        raise StartError(f"A folder in HUNMIN_TUNING_MODELS cannot be used. {error.message}") from None
    bounds = Bounds(rows=settings.max_dataset_rows)
    datasets = Datasets(Registry(platform.database()), platform.blobs(), models, bounds)
    app = platform.app(title="Tuning", upload_paths=[UPLOAD.path])
    app.include_router(datasets_api.routes(datasets))
    try:
        yield app
    finally:
        await datasets.close()


SERVICE = Service(name="tuning", settings=TuningSettings, build=build, migrations="hunmin_tuning.migrations")
