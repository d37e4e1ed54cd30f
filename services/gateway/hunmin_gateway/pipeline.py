"""What every metered request goes through, whatever its dialect: authenticate → reserve → generate → settle.

Authentication comes first of all, before the body is looked at, so it sits at the routes (authentication.py).
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GenerateRequest
from hunmin_contracts.usage import Outcome
from hunmin_kit.web import Client

from hunmin_gateway.exchange import Exchange, Meter
from hunmin_gateway.generation import Generation
from hunmin_gateway.usage.record import ReservedFor, UsageRecord


class Ledger(Protocol):
    """Where usage is written."""

    async def settle(self, record: UsageRecord) -> None:
        """Write the row in a transaction of its own, to the end even if the caller is cancelled meanwhile."""


class Reserving(Protocol):
    """Where room for what a request may use is found, before it is made."""

    def reserved(self, exchange: Exchange[Any]) -> AbstractAsyncContextManager[None]:
        """Hold that room as long as the context is open; entering it raises QUOTA_EXCEEDED if there is none.

        Settling the exchange is what gives the room back.
        """


class Pipeline:
    """The steps of a request, in order. A new step is one more context in `metered`, or in `run` if it is of texts."""

    def __init__(self, generation: Client, ledger: Ledger, quotas: Reserving) -> None:
        self._generation = generation
        self._ledger = ledger
        self._quotas = quotas

    @asynccontextmanager
    async def run(self, exchange: Exchange[GenerateRequest]) -> AsyncIterator[Generation]:
        """Run the exchange as long as the context is open; leaving it early cancels what is still generated."""
        async with (
            self.metered(exchange),
            Generation(exchange, self._generation) as events,
        ):
            yield events

    @asynccontextmanager
    async def metered(self, exchange: Exchange[Any]) -> AsyncIterator[Meter]:
        """Make any other call inside the context, and tell the meter what it used; it is settled on leaving.

        A call that fails costs nothing whatever the meter was told, one that is cancelled what it was told so far.
        """
        async with (
            Settlement(exchange, self._ledger),
            self._quotas.reserved(exchange),
        ):
            exchange.meter.is_running = True
            yield exchange.meter


class Settlement:
    """The last step: writes what the exchange used, however it ended.

    An exchange that is left without an error, or by a HunminError or a bug, or by cancellation, has succeeded, failed,
    or been cancelled. One that a quota has refused has not begun, and leaves nothing.
    """

    def __init__(self, exchange: Exchange[Any], ledger: Ledger) -> None:
        self._exchange = exchange
        self._ledger = ledger

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, HunminError) and error.code is ErrorCode.QUOTA_EXCEEDED:
            return
        exchange, outcome = self._exchange, _outcome(error)
        model = exchange.reserved_model
        failed = outcome is Outcome.FAILED
        await self._ledger.settle(
            UsageRecord(
                id=exchange.id,
                request_id=exchange.request_id,
                account_id=exchange.principal.account_id,
                project_id=exchange.principal.project_id,
                key_id=exchange.principal.key_id,
                model=exchange.model,
                endpoint=exchange.endpoint,
                prompt_tokens=0 if failed else exchange.meter.prompt_tokens,
                completion_tokens=0 if failed else exchange.meter.completion_tokens,
                backward_tokens=0 if failed else exchange.meter.backward_tokens,
                status=outcome,
                error_code=_error_code(error) if failed else None,
                started_at=exchange.started_at,
                duration_s=(datetime.now(UTC) - exchange.started_at).total_seconds(),
                batch_id=exchange.principal.batch_id,
                reserved_for=None if model is None else ReservedFor(model, exchange.purpose),
                trace_id=exchange.trace_id,
                is_awaited=outcome is Outcome.CANCELLED and exchange.meter.is_running,
            )
        )


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.SUCCEEDED
    # CancelledError and GeneratorExit, the two ways in which a client's leaving arrives, are no Exceptions.
    return Outcome.FAILED if isinstance(error, Exception) else Outcome.CANCELLED


def _error_code(error: BaseException | None) -> ErrorCode:
    return error.code if isinstance(error, HunminError) else ErrorCode.INTERNAL
