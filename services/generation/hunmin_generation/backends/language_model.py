"""The Protocol between a model and what computes it, in token ids. Nothing here knows HTTP or tensors."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from hunmin_generation.engine.request import EngineRequest, Event


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What must be known of a model; the fields mean what they mean in contracts' ModelInfo."""

    digest: str
    d_model: int
    embedding_std: float
    architecture: str
    context_length: int
    vocab_size: int
    created: int


class LanguageModel(Protocol):
    """One model's computer. All methods are called from one event loop, that of `start`."""

    @property
    def facts(self) -> Facts:
        """What the model is."""
        ...

    def start(self) -> None:
        """Begin to serve, for the running event loop."""
        ...

    async def close(self) -> None:
        """End what still runs with an `unavailable` error, and let go of everything."""
        ...

    async def check_ready(self) -> None:
        """Raise `unavailable` if requests cannot be served now."""
        ...

    def admit(self, request: EngineRequest, *, text: str | None) -> int:
        """Return how many tokens each completion of `request` may have; HunminError if it can never be served.

        `text` is as for `generate`, which refuses the same.
        """
        ...

    def generate(self, request: EngineRequest, *, text: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`; closing the generator cancels what is left of it.

        `text` is the prompt as it was given, if that was text alone. Raises HunminError before the first event if the
        request can never be served, or not now; what a backend cannot do exactly is `invalid_parameter`, never left
        out.
        """
        ...
