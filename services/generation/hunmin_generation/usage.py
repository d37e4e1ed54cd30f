"""Tells what each call used, by an event when it has ended: it is settled also if the gateway that asked is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import USAGE, UsageMetered
from hunmin_contracts.generation import ChunkEvent, PromptEvent, UsageEvent
from hunmin_contracts.ids import AccountId, new_event_id
from hunmin_contracts.usage import CallOrigin, Outcome
from hunmin_kit.data import Database, LastingWrites
from hunmin_kit.events import Events
from hunmin_kit.web import current_request_id

_log = structlog.get_logger()


class Call(Protocol):
    """A request of generation that is metered."""

    @property
    def account_id(self) -> AccountId: ...
    @property
    def model(self) -> str: ...
    @property
    def origin(self) -> CallOrigin | None: ...


class Meter:
    """What a call used so far. One that was not accepted has used nothing."""

    def __init__(self) -> None:
        self.is_accepted = False
        self.prompt_tokens = 0
        self.backward_tokens = 0
        self._completions: dict[int, int] = {}

    @property
    def completion_tokens(self) -> int:
        """Tokens of all completions."""
        return sum(self._completions.values())

    def count(self, event: object) -> None:
        """Take note of an event of the engine."""
        match event:
            case PromptEvent():
                self.record(prompt_tokens=event.prompt_tokens)
            case ChunkEvent():
                self._completions[event.index] = event.completion_tokens
            case UsageEvent():
                self._completions = {0: event.completion_tokens}

    def record(self, *, prompt_tokens: int, backward_tokens: int = 0) -> None:
        """Take note of all that was used; what was noted before is replaced."""
        self.is_accepted = True
        self.prompt_tokens = prompt_tokens
        self.backward_tokens = backward_tokens


class UsageEvents:
    """Tells of calls. `finish` it before the service stops."""

    def __init__(self, events: Events, database: Database) -> None:
        self._events = events
        self._database = database
        self._writes = LastingWrites()

    @asynccontextmanager
    async def metered(self, call: Call) -> AsyncIterator[Meter]:
        """Make the call inside the context, and tell the meter what it uses; leaving it tells that it has ended.

        One that is refused is not told of. One that is cut before it was accepted is: room is held until its word.
        """
        meter, outcome, code = Meter(), Outcome.SUCCEEDED, None
        try:
            yield meter
        except BaseException as error:
            # CancelledError and GeneratorExit, the two ways in which a caller's leaving arrives, are no Exceptions.
            outcome = Outcome.FAILED if isinstance(error, Exception) else Outcome.CANCELLED
            if outcome is Outcome.FAILED:
                code = error.code if isinstance(error, HunminError) else ErrorCode.INTERNAL
            raise
        finally:
            if call.origin is not None and (meter.is_accepted or outcome is Outcome.CANCELLED):
                self._tell(call, call.origin, meter, outcome, code)

    async def finish(self) -> None:
        """Wait for what is still being told."""
        await self._writes.finish()

    def _tell(self, call: Call, origin: CallOrigin, meter: Meter, outcome: Outcome, code: ErrorCode | None) -> None:
        told = UsageMetered(
            usage_id=origin.usage_id,
            request_id=current_request_id(),
            account_id=call.account_id,
            key_id=origin.key_id,
            endpoint=origin.endpoint,
            model=call.model,
            started_at=origin.started_at,
            prompt_tokens=meter.prompt_tokens,
            completion_tokens=meter.completion_tokens,
            backward_tokens=meter.backward_tokens,
            outcome=outcome,
            error_code=code,
            batch_id=origin.batch_id,
            calls=origin.calls,
        )
        event_id = new_event_id()  # one event, though it may be written twice
        self._writes.start(  # no answer waits for it
            lambda: self._database.run(
                lambda session: self._events.tell(session, USAGE, told, key=told.usage_id, event_id=event_id)
            ),
            on_loss=lambda error: _log.error(
                "generation.usage.lost", usage=told.model_dump(mode="json"), exc_info=error
            ),
        )
