"""What a service has of events: it tells them, and it subscribes to topics."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from hunmin_contracts.events import DataT, Topic
from hunmin_contracts.ids import EventId
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database
from hunmin_kit.events.bus import Bus
from hunmin_kit.events.consumer import Consumer, Subscription
from hunmin_kit.events.hearing import Hearing
from hunmin_kit.events.lease import Lease
from hunmin_kit.events.outbox import Outbox
from hunmin_kit.events.record import record_of
from hunmin_kit.events.relay import Relay
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import EventMetrics

_log = structlog.get_logger()


class Events:
    """The events of one service, whose schema has their tables (migration.py)."""

    def __init__(
        self, database: Database, bus: Bus, *, timing: Timing, tracer: trace.Tracer, metrics: EventMetrics
    ) -> None:
        self.outbox = Outbox(database)
        self._database = database
        self._bus = bus
        self._timing = timing
        self._tracer = tracer
        self._metrics = metrics

    async def tell(
        self, session: AsyncSession, topic: Topic[DataT], data: DataT, *, key: str, event_id: EventId | None = None
    ) -> None:
        """Tell that `data` has happened, if this transaction is committed. Events with the same key keep their order.

        Who may have to tell it again, not knowing whether that was committed, gives it an id: it has its effect once.
        What is larger than a broker carries is refused: TOO_LARGE.
        """
        source = f"hunmin/{self._database.schema}"
        record = record_of(topic, data, key=key, source=source, event_id=event_id)
        await self.outbox.put(session, record)

    @asynccontextmanager
    async def running(
        self, *subscriptions: Subscription[Any], hearings: Sequence[Hearing[Any]] = ()
    ) -> AsyncGenerator[None, None]:
        """Relay what is told, consume what is subscribed to and hear what is heard, as long as the block lasts."""
        lease = Lease(self._database, "relay", lease_s=self._timing.lease_s)
        relay = Relay(self.outbox, self._bus, lease, timing=self._timing, tracer=self._tracer, metrics=self._metrics)
        tasks = [asyncio.create_task(relay.run()), asyncio.create_task(self._watch())]
        tasks += [asyncio.create_task(self._consumer(subscription).run()) for subscription in subscriptions]
        tasks += [asyncio.create_task(hearing.run(self._bus, timing=self._timing)) for hearing in hearings]
        for task in tasks:
            task.add_done_callback(_log_end)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._bus.close()

    def _consumer(self, subscription: Subscription[Any]) -> Consumer:
        return Consumer(
            subscription,
            database=self._database,
            outbox=self.outbox,
            bus=self._bus,
            timing=self._timing,
            tracer=self._tracer,
            metrics=self._metrics,
        )

    async def _watch(self) -> None:
        """Tell the metrics what waits to be relayed."""
        while True:
            try:
                with suppress_instrumentation():
                    backlog = await self.outbox.backlog()
                self._metrics.waiting(schema=self._database.schema, rows=backlog.rows, oldest_s=backlog.oldest_s)
            except Exception as error:  # the edge: the next look may find it mended
                _log.warning("events.outbox.not_watched", schema=self._database.schema, exc_info=error)
            await asyncio.sleep(self._timing.sample_s)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("events.task.ended", exc_info=error)
