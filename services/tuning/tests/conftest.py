"""The tuning service before a small generation service, which serves the starter model and keeps what is published."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from hunmin_contracts.datasets import UPLOAD, DatasetInfo, UploadRequest
from hunmin_contracts.generation import MODELS, ModelInfo, ModelList
from hunmin_contracts.ids import AccountId, SoftPromptId
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import IMPORT, ImportRequest, Manifest, SoftPromptInfo
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import Running, running
from hunmin_kit.web import Client, serve
from hunmin_text.artefact import load
from hunmin_tuning.service import SERVICE

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
ME = AccountId("acct_1")


class GenerationSettings(Settings):
    port: int = 8082


@dataclass
class Generation:
    """The models that are served, and what was published, with its bytes."""

    models: list[ModelInfo] = field(default_factory=list)
    published: list[tuple[ImportRequest, bytes]] = field(default_factory=list)

    def service(self) -> Service[GenerationSettings]:
        """Return it as a service."""
        router = APIRouter()

        @serve(router, MODELS)
        async def models(request: Empty) -> ModelList:
            return ModelList(models=self.models)

        @serve(router, IMPORT)
        async def keep(request: ImportRequest, file: BinaryIO) -> SoftPromptInfo:
            self.published.append((request, file.read()))
            return SoftPromptInfo(
                id=SoftPromptId("sp_1"), name=request.name, version=7, model=request.model, n_virtual=1, d_model=1,
                dtype="float32", digest="", size_bytes=1, manifest=Manifest(), origin=request.origin,
                created_at=datetime.now(UTC),
            )  # fmt: skip

        @asynccontextmanager
        async def build(platform: Platform, settings: GenerationSettings) -> AsyncGenerator[FastAPI, None]:
            app = platform.app(title="Generation", upload_paths=[IMPORT.path])
            app.include_router(router)
            yield app

        return Service(name="generation", settings=GenerationSettings, build=build)


def starter() -> ModelInfo:
    """The starter model as it is served."""
    return ModelInfo(
        name="starter",
        digest=hashlib.sha256((STARTER / "model.safetensors").read_bytes()).hexdigest(),
        tokenizer_digest=load(STARTER).digest,
        d_model=256,
        embedding_std=0.02,
        architecture="gpt2",
        context_length=256,
        vocab_size=1,
        dtype="bfloat16",
        created=0,
    )


@dataclass
class Studio:
    """Both services, and the client of the one under test. It runs no job by itself."""

    generation: Generation
    up: Running
    tuning: Client
    starter: Path = STARTER

    async def upload(
        self, content: str | bytes, *, name: str, filename: str = "rows.csv", to: Client | None = None
    ) -> DatasetInfo:
        async def pieces() -> AsyncIterator[bytes]:
            yield content.encode() if isinstance(content, str) else content

        request = UploadRequest(account_id=ME, name=name, filename=filename)
        return await (to or self.tuning).upload(UPLOAD, request, pieces())


@pytest.fixture(scope="session")
def starter_env() -> dict[str, str]:
    """Settings of a service that knows the starter, and runs no job by itself."""
    return {"HUNMIN_TUNING_MODELS": f'{{"starter": "{STARTER}"}}', "HUNMIN_TUNING_SLOTS": "0"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio(starter_env: dict[str, str]) -> AsyncIterator[Studio]:
    generation = Generation([starter()])
    async with running(SERVICE, generation.service(), env=starter_env) as up:
        yield Studio(generation, up, up.client("tuning"))
