"""The engine of this process as a LanguageModel."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_modeling.checkpoint import load_checkpoint

from hunmin_generation.backends.language_model import Facts
from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest, Event
from hunmin_generation.engine.text import TokenText
from hunmin_generation.engine.thread import EngineThread

_PARAMETERS_PER_THREAD = 25_000_000


class NativeModel:
    """A checkpoint loaded into this process, an engine on it, and the engine's thread."""

    def __init__(
        self,
        name: str,
        folder: Path,
        vocabulary: TokenText,
        *,
        dtype: torch.dtype,
        int8: bool,
        limits: EngineLimits,
        threads: int | None,
        max_queue: int,
        on_failure: Callable[[Exception], None],
        on_first_token: Callable[[float], None],
    ) -> None:
        """Load the checkpoint in `folder`; HunminError if it cannot be used. `threads` None: as many as help."""
        checkpoint = load_checkpoint(folder, dtype=dtype, int8=int8)
        self._name = name
        self.engine = Engine(checkpoint, vocabulary, limits, on_failure=on_failure, on_first_token=on_first_token)
        self.thread = EngineThread(
            self.engine,
            threads=threads or _useful_threads(checkpoint.parameters),
            max_queue=max_queue,
            on_failure=on_failure,
        )
        self.facts = Facts(
            digest=checkpoint.digest,
            d_model=checkpoint.config.hidden_size,
            embedding_std=float(checkpoint.embedding.std()),
            architecture=checkpoint.architecture,
            context_length=self.engine.max_length,
            vocab_size=checkpoint.vocab_size,
            created=checkpoint.created,
        )

    def start(self) -> None:
        """Start the engine's thread."""
        self.thread.start()

    async def close(self) -> None:
        """End what still runs, and the thread."""
        await self.thread.close()

    async def check_ready(self) -> None:
        """Raise `unavailable` if the engine has stopped."""
        if not self.thread.is_alive:
            raise HunminError(ErrorCode.UNAVAILABLE, f"The engine of {self._name} does not run. Restart the service.")

    def admit(self, request: EngineRequest, *, text: str | None) -> int:
        """Return how many tokens each completion may have; HunminError if the request can never be served."""
        return self.thread.admit(request)

    async def generate(self, request: EngineRequest, *, text: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`."""
        async with aclosing(self.thread.generate(request)) as events:
            async for event in events:
                yield event


def _useful_threads(parameters: int) -> int:
    """Return one thread per core, but no more than the model feeds: a small one loses in meeting what it gains."""
    return max(1, min(os.cpu_count() or 1, parameters // _PARAMETERS_PER_THREAD))
