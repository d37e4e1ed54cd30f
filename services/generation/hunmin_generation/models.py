"""The models that this service serves, by name: each a tokenizer and what computes it. It knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GenerateRequest, Measurement, Message, ModelInfo
from hunmin_text.artefact import load
from hunmin_text.chat import encode_chat
from hunmin_text.tokenizer import Tokenizer

from hunmin_generation.backends.language_model import LanguageModel
from hunmin_generation.backends.native import NativeModel
from hunmin_generation.backends.server import RemoteServer
from hunmin_generation.backends.settings import RemoteBackend
from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import PRIORITIES, EngineRequest, Event
from hunmin_generation.engine.thread import EngineThread
from hunmin_generation.soft_prompts.library import HeldSoftPrompt
from hunmin_generation.soft_prompts.prompt import Prompt, count_characters, encode_prompt, filled_length

_THREAD_FROM = 2_000  # characters from which a prompt is encoded in a thread: about a millisecond's work


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """How a model is run. `threads` None: as many as help; `max_queue` completions may wait beside those that run."""

    engine: EngineLimits
    dtype: torch.dtype
    int8: bool
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

    def __init__(
        self, name: str, folder: Path, limits: ModelLimits, observers: Observers, remote: RemoteBackend | None = None
    ) -> None:
        """Load checkpoint and tokenizer from `folder`; HunminError if either cannot be used. `remote` computes it."""
        self.name = name
        self.dtype = limits.dtype
        self.tokenizer: Tokenizer = load(folder, name=name)
        self.backend: LanguageModel = (
            _remote(name, folder, self.tokenizer, observers, remote)
            if remote is not None
            else _native(name, folder, self.tokenizer, limits, observers)
        )
        facts = self.backend.facts
        self.info = ModelInfo(
            name=name,
            digest=facts.digest,
            tokenizer_digest=self.tokenizer.digest,
            d_model=facts.d_model,
            embedding_std=facts.embedding_std,
            architecture=facts.architecture,
            context_length=facts.context_length,
            vocab_size=facts.vocab_size,
            dtype="bfloat16" if self.dtype == torch.bfloat16 else "float32",
            created=facts.created,
        )
        self._max_prompt_characters = limits.max_prompt_characters

    @property
    def is_native(self) -> bool:
        """Whether it is computed in this process."""
        return isinstance(self.backend, NativeModel)

    @property
    def engine(self) -> Engine:
        """The engine of this process; `invalid_parameter` if another server computes the model."""
        return self._native.engine

    @property
    def thread(self) -> EngineThread:
        """The engine's thread; `invalid_parameter` if another server computes the model."""
        return self._native.thread

    @property
    def _native(self) -> NativeModel:
        if not isinstance(self.backend, NativeModel):
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"{self.name} is computed by another server, which cannot do this. Use a model that is computed here.",
                param="model",
            )
        return self.backend

    async def generate(
        self, request: GenerateRequest, soft_prompt: HeldSoftPrompt | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`; closing the generator cancels it."""
        tokens, text = await self._read(request, soft_prompt)
        async with aclosing(self.backend.generate(tokens, text=text)) as events:
            async for event in events:
                yield event

    async def measure(self, request: GenerateRequest, soft_prompt: HeldSoftPrompt | None = None) -> Measurement:
        """Return what `request` would use at most; refuse what `generate` would always refuse."""
        tokens, text = await self._read(request, soft_prompt)
        max_tokens = self.backend.admit(tokens, text=text)
        return self.measurement(soft_prompt, prompt_tokens=len(tokens.prompt), max_tokens=max_tokens)

    def measurement(
        self, soft_prompt: HeldSoftPrompt | None, *, prompt_tokens: int, max_tokens: int = 0, backward_tokens: int = 0
    ) -> Measurement:
        """Return the counts of a call with the names of what serves it."""
        info = None if soft_prompt is None else soft_prompt.info
        return Measurement(
            model=self.name,
            reference=self.name if info is None else f"{info.name}@{info.version}",
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            backward_tokens=backward_tokens,
        )

    async def _read(
        self, request: GenerateRequest, soft_prompt: HeldSoftPrompt | None
    ) -> tuple[EngineRequest, str | None]:
        """Return what to submit: the request in tokens, and its prompt as it was given if that was text alone."""
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
            priority=PRIORITIES[request.priority],
        )
        return tokens, request.prompt if isinstance(request.prompt, str) and soft_prompt is None else None

    async def encode(self, prompt: Prompt, soft_prompt: HeldSoftPrompt | None = None) -> list[int]:
        """Return the ids of a request's prompt, -1 - k for row k of the soft prompt; refuse one that is too long."""
        tokenizer = self.tokenizer
        if soft_prompt is not None:
            info = soft_prompt.info
            return await self._worked(filled_length(prompt, info), lambda: encode_prompt(prompt, info, tokenizer))
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

    async def encode_piece(self, text: str) -> list[int]:
        """Return the ids of a text that follows a prompt; refuse one that is too long."""
        return await self._worked(len(text), lambda: self.tokenizer.encode(text))

    async def _worked(self, characters: int, encode: Callable[[], list[int]]) -> list[int]:
        """Encode a short prompt at once, and a long one in a thread, so that other requests are served meanwhile."""
        if characters > self._max_prompt_characters:
            raise HunminError(
                ErrorCode.TOO_LARGE,
                f"The prompt has {characters:,} characters; at most {self._max_prompt_characters:,} are taken.",
                param="prompt",
            )
        return encode() if characters < _THREAD_FROM else await asyncio.to_thread(encode)


def _native(name: str, folder: Path, tokenizer: Tokenizer, limits: ModelLimits, observers: Observers) -> NativeModel:
    return NativeModel(
        name,
        folder,
        tokenizer,
        dtype=limits.dtype,
        int8=limits.int8,
        limits=limits.engine,
        threads=limits.threads,
        max_queue=limits.max_queue,
        on_failure=lambda error: observers.on_failure(name, error),
        on_first_token=lambda seconds: observers.on_first_token(name, seconds),
    )


def _remote(
    name: str, folder: Path, tokenizer: Tokenizer, observers: Observers, remote: RemoteBackend
) -> LanguageModel:
    # Imported here: they bring transformers, which takes ten seconds, and most studios have no such model.
    from hunmin_generation.backends.tgi import TgiModel
    from hunmin_generation.backends.vllm import VllmModel

    key = remote.api_key.get_secret_value() if remote.api_key is not None else None
    server = RemoteServer(name, str(remote.url), api_key=key)

    def first_token(seconds: float) -> None:
        observers.on_first_token(name, seconds)

    if remote.kind == "tgi":
        return TgiModel(name, folder, tokenizer, server, on_first_token=first_token)
    served_as = remote.served_as or name
    return VllmModel(name, folder, tokenizer, server, served_as=served_as, on_first_token=first_token)


class Models:
    """Every model, by name."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        limits: ModelLimits,
        observers: Observers,
        remotes: Mapping[str, RemoteBackend] = MappingProxyType({}),
    ) -> None:
        """Load them all; HunminError for the first that cannot be. Those in `remotes` are computed elsewhere."""
        self._models = {
            name: Model(name, folders[name], limits, observers, remotes.get(name)) for name in sorted(folders)
        }

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
        """Start whatever computes them, for the running event loop."""
        for model in self._models.values():
            model.backend.start()

    async def close(self) -> None:
        """End what still runs, and stop whatever computes."""
        await asyncio.gather(*(model.backend.close() for model in self._models.values()))

    async def check_ready(self) -> None:
        """Raise `unavailable` if a model cannot be computed now."""
        await asyncio.gather(*(model.backend.check_ready() for model in self._models.values()))
