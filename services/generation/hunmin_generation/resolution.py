"""From the name in a request to what serves it: a base model, or one with a soft prompt of the account before it."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId

from hunmin_generation.models import Model, Models
from hunmin_generation.soft_prompts.library import HeldSoftPrompt, SoftPrompts


@dataclass(frozen=True)
class Target:
    """What serves a request."""

    model: Model
    soft_prompt: HeldSoftPrompt | None


class Resolver:
    """Finds targets by name. A model's name goes before a soft prompt's."""

    def __init__(self, models: Models, soft_prompts: SoftPrompts) -> None:
        self._models = models
        self._soft_prompts = soft_prompts

    @asynccontextmanager
    async def resolve(self, account_id: AccountId, name: str) -> AsyncGenerator[Target, None]:
        """Hold what serves `name` for that account while the block lasts.

        `model_not_found` if there is neither such a model nor such a soft prompt of the account; never another instead.
        """
        if self._models.has(name):
            yield Target(self._models.get(name), None)
            return
        async with AsyncExitStack() as stack:
            try:
                held = await stack.enter_async_context(self._soft_prompts.acquire(account_id, name))
            except HunminError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                self._models.get(name)  # raises, with the names that there are
                raise
            yield Target(self._models.get(held.info.model), held)
