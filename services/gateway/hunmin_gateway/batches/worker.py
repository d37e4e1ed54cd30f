"""What a gateway does for batches, beside serving: it takes what is due of them, and does it, a little at a time."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
from hunmin_contracts.errors import HunminError
from hunmin_contracts.events import BatchChanged, Envelope
from hunmin_kit.data import Database, LastingWrites
from hunmin_kit.events import Events
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.batches.batch import ClaimedBatch, ClaimedLine, LineResult
from hunmin_gateway.batches.claims import Claims
from hunmin_gateway.batches.patience import Wait
from hunmin_gateway.batches.results import Results
from hunmin_gateway.batches.states import Status
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.batches.validating import Validation

LEASE_S = 30.0
POLL_S = 1.0  # between two looks for what no event told of: a cancel is seen so soon
_TURNS = 3  # in which a lease is renewed before it runs out
_READERS = 2  # batches that are validated or ended at a time: a long file lets a short one by
_RETRY_S = 15.0  # before a batch is tried again that something unforeseen befell
_log = structlog.get_logger()

RunLine = Callable[[ClaimedLine], Awaitable[LineResult | Wait]]


class BatchWorker:
    """One gateway's part in it; any number of gateways do the same at a time, and each line has one result."""

    def __init__(
        self,
        database: Database,
        events: Events,
        *,
        validation: Validation,
        results: Results,
        run_line: RunLine,
        concurrency: int,
        lease_s: float = LEASE_S,
    ) -> None:
        self._database = database
        self._events = events
        self._claims = Claims(database, lease_s=lease_s)
        self._validation = validation
        self._results = results
        self._run_line = run_line
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._writes = LastingWrites()
        self._lines: dict[str, asyncio.Task[None]] = {}  # by claim
        self._calls = [asyncio.Event() for _ in range(_READERS + 1)]

    async def note(self, session: AsyncSession, event: Envelope[BatchChanged]) -> None:
        """Take note of an event: one that was made is validated, by whoever comes first."""
        if event.data.status == Status.VALIDATING:
            await Batches(session, self._events).make_due(event.data.batch_id)
            sqlalchemy_event.listen(session.sync_session, "after_commit", lambda _: self.wake(), once=True)

    def wake(self) -> None:
        """Look for work at once."""
        for call in self._calls:
            call.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work as long as the block lasts. What is not done at its end is given back, for others to do."""
        first, *others = self._calls
        tasks = [asyncio.create_task(self._repeat(self._take_lines, first)), asyncio.create_task(self._watch())]
        tasks += [asyncio.create_task(self._repeat(self._take_batch, call)) for call in others]
        try:
            yield
        finally:
            for task in (*tasks, *self._lines.values()):
                _stop(task)
            await asyncio.gather(*tasks, *self._lines.values(), return_exceptions=True)
            await self._writes.finish()

    async def _repeat(self, take: Callable[[], Awaitable[bool]], call: asyncio.Event) -> None:
        """Do what `take` finds, until it finds nothing; then wait for a call, or a while."""
        while True:
            call.clear()
            try:
                found = await take()
            except Exception as error:  # the consumer's edge: the next look may find it mended
                _log.warning("batch.look.failed", exc_info=error)
                found = False
            if not found:
                try:
                    async with asyncio.timeout(POLL_S):
                        await call.wait()
                except TimeoutError:
                    pass

    async def _take_lines(self) -> bool:
        room = self._concurrency - len(self._lines)
        if room <= 0:
            return False
        for line in await self._claims.lines(room):
            task = asyncio.create_task(self._run(line))
            self._lines[line.claim] = task
            task.add_done_callback(partial(self._ended, line.claim))
        return False  # the next look is when one of them ends

    def _ended(self, claim: str, _: asyncio.Task[None]) -> None:
        del self._lines[claim]
        self.wake()

    async def _run(self, line: ClaimedLine) -> None:
        outcome: LineResult | Wait = Wait(is_free=True)  # that of one that is cancelled
        try:
            outcome = await self._run_line(line)
        finally:
            await asyncio.shield(self._write(line, outcome))

    def _write(self, line: ClaimedLine, outcome: LineResult | Wait) -> asyncio.Task[None]:
        async def write(session: AsyncSession) -> None:
            if isinstance(outcome, LineResult):
                await Batches(session, self._events).apply(line, outcome)
            else:
                await self._claims.release_line(session, line, outcome)

        def lost(error: HunminError) -> None:
            _log.error("batch.line.not_written", batch_id=line.batch_id, number=line.number, exc_info=error)

        return self._writes.start(lambda: self._database.run(write), on_loss=lost)

    async def _take_batch(self) -> bool:
        held = await self._claims.batch()
        if held is None:
            return False
        try:
            async with self._kept(held):
                await self._do(held)
        except asyncio.CancelledError:
            await asyncio.shield(self._claims.release_batch(held, delay_s=0))
            raise
        except Exception as error:  # the consumer's edge: another try may succeed
            _log.error("batch.not_advanced", batch_id=held.id, status=held.status, exc_info=error)
            await self._claims.release_batch(held, delay_s=_RETRY_S)
        self.wake()
        return True

    async def _do(self, held: ClaimedBatch) -> None:
        if held.status is Status.VALIDATING:
            await self._validation.validate(held)
        else:
            await self._results.write(held)

    @asynccontextmanager
    async def _kept(self, held: ClaimedBatch) -> AsyncGenerator[None, None]:
        """Renew the claim as long as the block lasts."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._lease_s / _TURNS)
                try:
                    await self._claims.renew_batch(held)
                except HunminError as error:
                    _log.warning("batch.claim.not_renewed", batch_id=held.id, error=error.code)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _watch(self) -> None:
        """End what is late, and what of this gateway's lines nobody wants any more; renew the others' claims."""
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                with suppress_instrumentation():
                    async with self._database.session() as session:
                        await Batches(session, self._events).expire()
                await self._stop_unwanted()
                if time.monotonic() - renewed_at >= self._lease_s / _TURNS:
                    renewed_at = time.monotonic()
                    await self._claims.renew_lines(self._lines.keys())
            except Exception as error:  # the consumer's edge: the next turn tries again, and leases last for several
                _log.warning("batch.watch.failed", exc_info=error)

    async def _stop_unwanted(self) -> None:
        claims = [*self._lines]
        if not claims:
            return
        wanted = await self._claims.wanted_lines(claims)
        for claim in claims:
            if claim not in wanted and (task := self._lines.get(claim)) is not None:
                _stop(task)


def _stop(task: asyncio.Task[None]) -> None:
    """Cancel it once: while it ends it settles what it has used, and a second time would cut that off."""
    if not task.cancelling():
        task.cancel()
