"""The composition root of the tuning service: its settings, its datasets, its jobs and where they run."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from fastapi import FastAPI
from hunmin_contracts.datasets import UPLOAD
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.run.errors import StartError
from pydantic import Field, model_validator

from hunmin_tuning.jobs.backends.pytorchjob.settings import PyTorchJobSettings

if TYPE_CHECKING:
    from hunmin_tuning.datasets.library import Datasets
    from hunmin_tuning.jobs.backends.backend import JobBackend
    from hunmin_tuning.jobs.claims import Claims
    from hunmin_tuning.jobs.preparation import Preparation
    from hunmin_tuning.jobs.runner import Runner

_log = structlog.get_logger()


class TuningSettings(Settings):
    """HUNMIN_TUNING_…"""

    port: int = 8083
    models: dict[str, Path] = Field(default={"starter": Path("training/models/starter")}, min_length=1)
    max_dataset_rows: int = Field(default=2_000_000, ge=1)
    backend: Literal["local", "pytorchjob"] = "local"
    pytorchjob: PyTorchJobSettings | None = None  # where the backend is that
    slots: int = Field(default=1, ge=0)  # jobs at a time in this process; 0: it only offers them
    max_running_per_account: int = Field(default=1, ge=1)
    max_attempts: int = Field(default=5, ge=1)  # of a job whose process breaks off
    retry_delay_s: float = Field(default=2.0, ge=0)  # before the second attempt; then doubled
    lease_s: float = Field(default=30.0, ge=1)  # after which another process takes the jobs of one that died
    grace_s: float = Field(default=20.0, ge=0)  # between asking a trainer to end and ending it
    threads: int | None = Field(default=None, ge=1)  # of a trainer; None: what torch finds

    @model_validator(mode="after")
    def _check_backend(self) -> "TuningSettings":
        if self.backend == "pytorchjob" and self.pytorchjob is None:
            raise ValueError("backend is pytorchjob, and pytorchjob does not say where: it needs an image at least")
        return self


@asynccontextmanager
async def build(platform: Platform, settings: TuningSettings) -> AsyncGenerator[FastAPI, None]:
    """Read what must be known of every model, then offer datasets and jobs, and run those in the queue."""
    # Imported here: SQLAlchemy and tokenizers take a while, and whoever only asks for the settings must not wait.
    from hunmin_tuning.datasets import api as datasets_api
    from hunmin_tuning.jobs import api as jobs_api
    from hunmin_tuning.jobs.claims import Claims
    from hunmin_tuning.jobs.preparation import Preparation
    from hunmin_tuning.jobs.registry import JobLimits, Registry
    from hunmin_tuning.products import api as products_api

    await platform.check_schema()
    events = platform.events()
    datasets = await new_datasets(platform, settings)
    limits = JobLimits(
        max_attempts=settings.max_attempts,
        max_running_per_account=settings.max_running_per_account,
        slots=max(settings.slots, 1),
        lease_s=settings.lease_s,
        retry_delay_s=settings.retry_delay_s,
    )
    preparation = Preparation(datasets, platform.client("generation"), settings.models, threads=settings.threads)
    running: list[asyncio.Task[None]] = []

    async def check_ready() -> None:
        if any(task.done() for task in running):
            raise HunminError(ErrorCode.UNAVAILABLE, "The runner of jobs has ended. See the log, and start it again.")

    app = platform.app(title="Tuning", ready=check_ready, upload_paths=[UPLOAD.path])
    app.include_router(datasets_api.routes(datasets))
    app.include_router(jobs_api.routes(Registry(platform.database(), limits, events), preparation.check))
    app.include_router(products_api.routes())
    if settings.slots:
        runner = _runner(
            platform, Claims(platform.database(), limits, events), backend_of(platform, settings), preparation
        )
        running.append(asyncio.create_task(runner.run()))
        running[0].add_done_callback(_log_end)
    try:
        async with events.running():
            yield app
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await datasets.close()


def backend_of(platform: Platform, settings: TuningSettings) -> "JobBackend":
    """Return where jobs run, by the settings."""
    if settings.backend == "pytorchjob" and settings.pytorchjob is not None:
        if platform.blobs_url is None:
            raise StartError(
                "HUNMIN_TUNING_BACKEND is pytorchjob, whose pods reach no folder of this machine. Set HUNMIN_BLOBS_URL."
            )
        try:
            from hunmin_tuning.jobs.backends.pytorchjob.backend import PyTorchJobBackend

            return PyTorchJobBackend(settings.pytorchjob, platform.blobs(), blobs_url=platform.blobs_url)
        except (ImportError, ValueError) as error:
            raise StartError(
                f"HUNMIN_TUNING_PYTORCHJOB cannot be used: {error}. Install hunmin-tuning[cluster], or correct it."
            ) from None
    from hunmin_tuning.jobs.backends.local import LocalBackend

    command = [sys.executable, "-m", "hunmin_tuning.trainer"]
    return LocalBackend(command, environment=os.environ, grace_s=settings.grace_s)


async def new_datasets(platform: Platform, settings: TuningSettings) -> "Datasets":
    """Return the datasets, for the base models of the settings."""
    from hunmin_tuning.datasets.bounds import Bounds
    from hunmin_tuning.datasets.library import Datasets
    from hunmin_tuning.datasets.models import load_models
    from hunmin_tuning.datasets.registry import Registry

    try:
        models = await asyncio.to_thread(load_models, settings.models)
    except HunminError as error:
        raise StartError(f"A folder in HUNMIN_TUNING_MODELS cannot be used. {error.message}") from None
    bounds = Bounds(rows=settings.max_dataset_rows)
    return Datasets(Registry(platform.database()), platform.blobs(), models, bounds)


def _runner(platform: Platform, claims: "Claims", backend: "JobBackend", preparation: "Preparation") -> "Runner":
    from hunmin_tuning.jobs.attempt import Parts
    from hunmin_tuning.jobs.publication import Publication
    from hunmin_tuning.jobs.runner import Runner

    publication = Publication(platform.client("generation"))
    parts = Parts(claims, backend, preparation.prepare, publication.publish)
    return Runner(parts, platform.home / "tuning" / "jobs")


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        _log.error("tuning.runner.ended", exc_info=task.exception())


SERVICE = Service(
    name="tuning",
    settings=TuningSettings,
    build=build,
    needs=("generation",),
    migrations="hunmin_tuning.migrations",
)
