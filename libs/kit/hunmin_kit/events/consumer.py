"""A consumer: takes the events of a topic from a reader, and lets each have its effect once, in one transaction.

Of a lane one delivery after the other is brought to an end: handled, found handled before, or dead. So what cannot be
handled holds its lane up for as long as its tries take, and no longer.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import DataT, Envelope, Topic
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database
from hunmin_kit.events.attempts import Attempts, count_dead, redriven_letters
from hunmin_kit.events.bus import Batch, Bus, Delivery, Reader
from hunmin_kit.events.lease import LeaseLost
from hunmin_kit.events.outbox import Outbox
from hunmin_kit.events.record import Unreadable, event_of
from hunmin_kit.events.tables import PROCESSED, in_seconds
from hunmin_kit.events.timing import Backoff, Timing
from hunmin_kit.observe.logs import describe
from hunmin_kit.observe.metrics import EventMetrics

# What was away comes back, and the event is not to blame: such a try does not count, and nobody counts the tries.
_AWAY = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED, ErrorCode.DEADLINE_EXCEEDED})
_CLEANED_AT_ONCE = 1000
_log = structlog.get_logger()


@dataclass(frozen=True)
class Subscription(Generic[DataT]):
    """What a service does with the events of a topic. `name` is the consumer's, unique within the service, for good.

    `handle` has its effect in the session's transaction, and nowhere else; it is called again for an event whose
    transaction was not committed, and never for one whose was.
    """

    name: str
    topic: Topic[DataT]
    handle: Callable[[AsyncSession, Envelope[DataT]], Awaitable[None]]


class Consumer:
    """One subscription of a service, at work."""

    def __init__(
        self,
        subscription: Subscription[Any],
        *,
        database: Database,
        outbox: Outbox,
        bus: Bus,
        timing: Timing,
        tracer: trace.Tracer,
        metrics: EventMetrics,
    ) -> None:
        self.name = f"{database.schema}.{subscription.name}"
        self._subscription = subscription
        self._database = database
        self._bus = bus
        self._timing = timing
        self._tracer = tracer
        self._metrics = metrics
        self._attempts = Attempts(database, outbox, self.name)

    async def run(self) -> None:
        """Consume until cancelled."""
        topic = self._subscription.topic.name
        async with (
            self._bus.reader(self.name, topic) as reader,
            redriven_letters(self._database, self.name, timing=self._timing) as letters,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._drain(reader, idle_s=0))
            tasks.create_task(self._drain(letters, idle_s=self._timing.look_s))
            tasks.create_task(self._watch(reader))

    async def _drain(self, reader: Reader, *, idle_s: float) -> None:
        backoff = Backoff(self._timing.retry_s, self._timing.max_retry_s)
        while True:
            try:
                with suppress_instrumentation():  # or looking for events would be most of what is traced
                    batches = await reader.read()
                async with asyncio.TaskGroup() as lanes:
                    for batch in batches:
                        lanes.create_task(self._handle(reader, batch))
                backoff.reset()
                if not batches:
                    await asyncio.sleep(idle_s)
            except Exception as error:  # the edge: nothing that happens once may end the consumer
                self._log_delay(error)
                await backoff.sleep()

    async def _handle(self, reader: Reader, batch: Batch) -> None:
        started, handled = time.monotonic(), 0
        with suppress_instrumentation():
            begun = await self._attempts.begin(batch.deliveries)
        for delivery in batch.deliveries:
            await self._settle(delivery, is_begun=delivery.place in begun)
            handled += 1
            if time.monotonic() - started > self._timing.batch_s:
                break
        try:
            with suppress_instrumentation():
                await reader.finish(batch, handled)
        except LeaseLost:
            _log.info("events.lane.lost", consumer=self.name, lane=batch.lane)

    async def _settle(self, delivery: Delivery, *, is_begun: bool) -> None:
        """Bring the delivery to its end, however often it has to be tried; `is_begun`: the first time is counted."""
        backoff = Backoff(self._timing.retry_s, self._timing.max_retry_s)
        attempt: int | None = 1 if is_begun else 0  # 0: to be counted
        while True:
            try:
                attempt = attempt or await self._attempts.count(delivery)
                if attempt is None or await self._try(delivery, attempt):
                    return
                attempt = 0
            except HunminError as error:
                if not _is_away(error):
                    raise
                self._log_delay(error)  # and the same try again
            await backoff.sleep()

    async def _try(self, delivery: Delivery, attempt: int) -> bool:
        """Try the delivery for that time; tell whether that was its end."""
        if attempt > self._timing.max_attempts:
            await self._bury(delivery, None)
            return True
        try:
            async with asyncio.timeout(self._timing.handler_s):
                await self._have_effect(delivery)
        except Unreadable as error:
            await self._bury(delivery, str(error))
        except asyncio.CancelledError:
            with contextlib.suppress(HunminError):
                await self._attempts.give_back(delivery)
            raise
        except Exception as error:  # the edge
            if _is_away(error):
                raise
            if attempt < self._timing.max_attempts:
                self._metrics.handled(consumer=self.name, outcome="failed")
                _log.warning("events.event.failed", consumer=self.name, place=delivery.place, attempt=attempt)
                await self._attempts.note(delivery, describe(error))
                return False
            await self._bury(delivery, describe(error))
        return True

    async def _have_effect(self, delivery: Delivery) -> None:
        record = delivery.record
        with self._span(delivery):
            event = event_of(record, self._subscription.topic)
            trace.get_current_span().set_attribute("messaging.message.id", event.id)
            async with self._database.session() as session:
                is_new = await self._is_new(session, event.id)
                if is_new:
                    await self._subscription.handle(session, event)
                await self._attempts.settle(session, delivery)
        self._metrics.handled(consumer=self.name, outcome="handled" if is_new else "repeated")

    async def _is_new(self, session: AsyncSession, event_id: str) -> bool:
        # A transaction elsewhere that has done the same waits here, or makes this one wait for its end.
        added = insert(PROCESSED).values(consumer=self.name, event_id=event_id).on_conflict_do_nothing()
        return await session.scalar(added.returning(PROCESSED.c.event_id)) is not None

    async def _bury(self, delivery: Delivery, error: str | None) -> None:
        why = await self._attempts.bury(delivery, error)
        self._metrics.handled(consumer=self.name, outcome="dead")
        topic = delivery.record.topic
        _log.error("events.event.died", consumer=self.name, topic=topic, place=delivery.place, error=why)

    @contextlib.contextmanager
    def _span(self, delivery: Delivery) -> Iterator[None]:
        topic = delivery.record.topic
        span = self._tracer.start_as_current_span(
            f"process {topic}",
            context=propagate.extract(delivery.record.headers),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.destination.name": topic,
                "messaging.consumer.group.name": self.name,
                "messaging.operation.type": "process",
            },
            record_exception=False,  # its message may quote a prompt
            set_status_on_exception=False,
        )
        with span as current:
            try:
                yield
            except BaseException as error:
                current.set_attribute("error.type", type(error).__qualname__)
                current.set_status(trace.StatusCode.ERROR)
                raise

    async def _watch(self, reader: Reader) -> None:
        """Tell the metrics how far behind the consumer is, and forget events too old to come again."""
        while True:
            try:
                with suppress_instrumentation():
                    lag = await reader.lag()
                    async with self._database.session() as session:
                        dead = await count_dead(session, self.name)
                    await self._forget()
                self._metrics.behind(consumer=self.name, lag=lag, dead=dead)
            except Exception as error:  # the edge
                self._log_delay(error)
            await asyncio.sleep(self._timing.sample_s)

    async def _forget(self) -> None:
        is_old = PROCESSED.c.processed_at < in_seconds(-self._timing.processed_s)
        old = select(PROCESSED.c.event_id).where(PROCESSED.c.consumer == self.name, is_old)
        old = old.order_by(PROCESSED.c.processed_at).limit(_CLEANED_AT_ONCE)
        gone = PROCESSED.c.event_id.in_(old.scalar_subquery())
        async with self._database.session() as session:
            await session.execute(delete(PROCESSED).where(PROCESSED.c.consumer == self.name, gone))

    def _log_delay(self, error: Exception) -> None:
        if _is_away(error):
            _log.warning("events.consumer.delayed", consumer=self.name, reason=_reason(error))
        else:
            _log.error("events.consumer.failed", consumer=self.name, exc_info=error)


def _is_away(error: BaseException) -> bool:
    """Whether something that it needs is away, and nothing else is wrong."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_away(each) for each in error.exceptions)
    return isinstance(error, HunminError) and error.code in _AWAY


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " ".join(dict.fromkeys(_reason(each) for each in error.exceptions))
    return str(error)
