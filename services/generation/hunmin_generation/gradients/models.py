"""The models that gradients are computed on, each with a worker of its own. Knows neither engines nor HTTP."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ModelInfo
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_text.tokenizer import Tokenizer

from hunmin_generation.gradients.worker import GradientWorker


@dataclass(frozen=True, kw_only=True)
class GradientLimits:
    """How much is computed at once.

    `max_tokens`: positions of a micro-batch, and so of an example. `max_characters`: of all texts of a request.
    `max_queue`: batches that wait beside the one that is computed. `threads`: that compute.
    """

    max_tokens: int
    max_characters: int
    max_queue: int
    threads: int


class GradientModel:
    """One model in this process: its weights are those that it decodes with."""

    def __init__(
        self,
        info: ModelInfo,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        limits: GradientLimits,
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Make its worker; `on_failure` hears of unexpected errors."""
        self.info = info
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.limits = limits
        self.worker = GradientWorker(threads=limits.threads, max_queue=limits.max_queue, on_failure=on_failure)

    @property
    def max_length(self) -> int:
        """How many tokens prompt and target may have together."""
        return min(self.info.context_length, self.limits.max_tokens)

    @property
    def vocab_size(self) -> int:
        """How many ids have a meaning: models pad their vocabulary."""
        return min(self.checkpoint.vocab_size, self.tokenizer.vocab_size)


class GradientModels:
    """All of them, by name."""

    def __init__(self, models: Iterable[GradientModel]) -> None:
        self._models = {model.info.name: model for model in models}

    def all(self) -> list[GradientModel]:
        """Return every model."""
        return list(self._models.values())

    def get(self, name: str) -> GradientModel:
        """Return the model of that name; `invalid_parameter` if its weights are not here."""
        model = self._models.get(name)
        if model is None:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"The model {name!r} is computed by another server, which gives no gradients. "
                f"These give them: {', '.join(self._models) or 'none'}.",
                param="model",
            )
        return model

    def start(self) -> None:
        """Start every worker, for the running event loop."""
        for model in self._models.values():
            model.worker.start()

    async def close(self) -> None:
        """End what still runs, and stop every worker."""
        await asyncio.gather(*(model.worker.close() for model in self._models.values()))

    async def check_ready(self) -> None:
        """Raise `unavailable` if a worker has stopped."""
        for name, model in self._models.items():
            if not model.worker.is_alive:
                raise HunminError(
                    ErrorCode.UNAVAILABLE, f"The gradient worker of {name} does not run. Restart the service."
                )
