"""The models that this service serves, by name: each a checkpoint, its tokenizer and an engine. It knows no HTTP."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GenerateRequest, Message, ModelInfo
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_text.artefact import load
from hunmin_text.chat import encode_chat
from hunmin_text.tokenizer import Tokenizer

from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest, Event
from hunmin_generation.engine.thread import EngineThread
from hunmin_generation.soft_prompts.library import HeldSoftPrompt
from hunmin_generation.soft_prompts.prompt import Prompt, count_characters, encode_prompt

_PARAMETERS_PER_THREAD = 25_000_000
_THREAD_FROM = 2_000  # characters from which a prompt is encoded in a thread: about a millisecond's work


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """How a model is run. `threads` None: as many as help; `max_queue` completions may wait beside those that run."""

    engine: EngineLimits
    dtype: torch.dtype
    threads: int | None
    max_queue: int
    max_prompt_characters: int


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Who hears of a model's unexpected errors, and how long each request waited for its first token."""

    on_failure: Callable[[str, Exception], None]
    on_first_token: Callable[[str, float], None]


class Model:
    """One model, ready to generate."""

    def __init__(self, name: str, folder: Path, limits: ModelLimits, observers: Observers) -> None:
        """Load checkpoint and tokenizer from `folder`; HunminError if either cannot be used."""
        self.name = name
        self.tokenizer: Tokenizer = load(folder, name=name)
        checkpoint = load_checkpoint(folder, dtype=limits.dtype)

        def failed(error: Exception) -> None:
            observers.on_failure(name, error)

        self.engine = Engine(
            checkpoint,
            self.tokenizer,
            limits.engine,
            on_failure=failed,
            on_first_token=lambda seconds: observers.on_first_token(name, seconds),
        )
        self.info = ModelInfo(
            name=name,
            digest=checkpoint.digest,
            tokenizer_digest=self.tokenizer.digest,
            d_model=checkpoint.config.hidden_size,
            embedding_std=float(checkpoint.model.get_input_embeddings().get_parameter("weight").std()),
            architecture=checkpoint.architecture,
            context_length=self.engine.max_length,
            vocab_size=checkpoint.vocab_size,
            created=checkpoint.created,
        )
        self.thread = EngineThread(
            self.engine,
            threads=limits.threads or _useful_threads(checkpoint.parameters),
            max_queue=limits.max_queue,
            on_failure=failed,
        )
        self._max_prompt_characters = limits.max_prompt_characters

    async def generate(
        self, request: GenerateRequest, soft_prompt: HeldSoftPrompt | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`; closing the generator cancels it."""
        tokens = EngineRequest(
            prompt=await self.encode(request.prompt, soft_prompt),
            sampling=request.sampling,
            n=request.n,
            max_tokens=request.max_tokens,
            stop=tuple(request.stop),
            logprobs=request.logprobs,
            echo=request.echo,
            salt=request.account_id,
            soft_prompt=soft_prompt.rows if soft_prompt is not None else None,
        )
        async with aclosing(self.thread.generate(tokens)) as events:
            async for event in events:
                yield event

    async def encode(self, prompt: Prompt, soft_prompt: HeldSoftPrompt | None = None) -> list[int]:
        """Return the ids of a request's prompt, -1 - k for row k of the soft prompt; refuse one that is too long."""
        tokenizer = self.tokenizer
        if soft_prompt is not None:
            info = soft_prompt.info
            characters = count_characters(prompt) + len(info.manifest.template or "")
            return await self._worked(characters, lambda: encode_prompt(prompt, info, tokenizer))
        if isinstance(prompt, Mapping):
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"{self.name} has no template with fields to fill. Send `prompt` as text, or name a soft prompt.",
                param="prompt",
            )
        if isinstance(prompt, str):
            return await self._worked(len(prompt), lambda: tokenizer.prefix_ids + tokenizer.encode(prompt))
        ids = [token for token in prompt if isinstance(token, int)]
        messages = [message.model_dump() for message in prompt if isinstance(message, Message)]
        if not messages:
            return ids
        return await self._worked(count_characters(prompt), lambda: encode_chat(tokenizer, messages))

    async def _worked(self, characters: int, encode: Callable[[], list[int]]) -> list[int]:
        """Encode a short prompt at once, and a long one in a thread, so that other requests are served meanwhile."""
        if characters > self._max_prompt_characters:
            raise HunminError(
                ErrorCode.TOO_LARGE,
                f"The prompt has {characters:,} characters; at most {self._max_prompt_characters:,} are taken.",
                param="prompt",
            )
        return encode() if characters < _THREAD_FROM else await asyncio.to_thread(encode)


def _useful_threads(parameters: int) -> int:
    """Return one thread per core, but no more than the model feeds: a small one loses in meeting what it gains."""
    return max(1, min(os.cpu_count() or 1, parameters // _PARAMETERS_PER_THREAD))


class Models:
    """Every model, by name."""

    def __init__(self, folders: Mapping[str, Path], limits: ModelLimits, observers: Observers) -> None:
        """Load them all; HunminError for the first that cannot be."""
        self._models = {name: Model(name, folders[name], limits, observers) for name in sorted(folders)}

    def all(self) -> list[Model]:
        """Return every model, in the order of their names."""
        return list(self._models.values())

    def has(self, name: str) -> bool:
        """Whether there is a model of that name."""
        return name in self._models

    def get(self, name: str) -> Model:
        """Return the model of that name; `model_not_found` if there is none."""
        model = self._models.get(name)
        if model is None:
            raise HunminError(
                ErrorCode.MODEL_NOT_FOUND,
                f"There is no model or soft prompt {name[:80]!r}. There are: {', '.join(self._models)}.",
                param="model",
            )
        return model

    def start(self) -> None:
        """Start every engine, for the running event loop."""
        for model in self._models.values():
            model.thread.start()

    async def close(self) -> None:
        """End what still runs, and stop every engine."""
        await asyncio.gather(*(model.thread.close() for model in self._models.values()))

    async def check_ready(self) -> None:
        """Raise `unavailable` if an engine has stopped."""
        for model in self._models.values():
            if not model.thread.is_alive:
                raise HunminError(
                    ErrorCode.UNAVAILABLE, f"The engine of {model.name} does not run. Restart the service."
                )
