"""The composition root of the tokenizer service: its settings, its tokenizers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from hunmin_contracts.errors import HunminError
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.run.errors import StartError
from pydantic import Field

from hunmin_tokenizer.api import routes
from hunmin_tokenizer.library import Library, Limits


class TokenizerSettings(Settings):
    """HUNMIN_TOKENIZER_…"""

    port: int = 8081
    models: dict[str, Path] = Field(default={"starter": Path("training/models/starter")}, min_length=1)
    max_characters: int = Field(default=400_000, ge=1)  # in all texts of a request
    max_texts: int = Field(default=1_000, ge=1)
    max_ids: int = Field(default=400_000, ge=1)
    thread_from: int = Field(default=2_000, ge=1)  # characters or ids: about a millisecond's work


@asynccontextmanager
async def build(platform: Platform, settings: TokenizerSettings) -> AsyncGenerator[FastAPI, None]:
    """Load every tokenizer, then offer them."""
    try:
        library = await asyncio.to_thread(Library, settings.models)
    except HunminError as error:
        raise StartError(f"A folder in HUNMIN_TOKENIZER_MODELS cannot be used. {error.message}") from None
    limits = Limits(
        max_characters=settings.max_characters,
        max_texts=settings.max_texts,
        max_ids=settings.max_ids,
        thread_from=settings.thread_from,
    )
    app = platform.app(title="Tokenizer")
    app.include_router(routes(library, limits))
    yield app


SERVICE = Service(name="tokenizer", settings=TokenizerSettings, build=build)
