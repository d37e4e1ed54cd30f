"""Takes what is in an outbox to the bus, in the order of commits, at least once. One process at a time does so."""

import asyncio
import time

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from hunmin_kit.events.bus import Bus
from hunmin_kit.events.lease import Lease, LeaseLost, kept
from hunmin_kit.events.outbox import Outbox
from hunmin_kit.events.record import Record
from hunmin_kit.events.timing import Backoff, Timing
from hunmin_kit.observe.metrics import EventMetrics

_ROWS_AT_ONCE = 100  # of at most 1 MB each, all of them in memory
_CLEAN_EVERY_S = 60.0
_log = structlog.get_logger()


class Relay:
    """One schema's relay."""

    def __init__(
        self,
        outbox: Outbox,
        bus: Bus,
        lease: Lease,
        *,
        timing: Timing,
        tracer: trace.Tracer,
        metrics: EventMetrics,
    ) -> None:
        self._tracer = tracer
        self._outbox = outbox
        self._bus = bus
        self._lease = lease
        self._timing = timing
        self._metrics = metrics
        self._cleaned_at = 0.0

    async def run(self) -> None:
        """Relay until cancelled. What fails is tried again, and again before anything that comes after it."""
        backoff = Backoff(self._timing.retry_s, self._timing.max_retry_s)
        # Untraced but for what is sent: it looks several times a second, for nobody's request.
        with suppress_instrumentation():
            async with kept([self._lease], lease_s=self._lease.lease_s):
                while True:
                    try:
                        await self._round()
                        backoff.reset()
                    except LeaseLost:
                        _log.info("events.relay.lease_lost", schema=self._outbox.schema)
                    except Exception as error:  # the edge: nothing that happens once may end the relay
                        _log_delay(self._outbox.schema, error)
                        await backoff.sleep()

    async def relay_some(self) -> int:
        """Relay what waits, a limited number of it; return how much that was."""
        rows = await self._outbox.waiting(_ROWS_AT_ONCE)
        if rows:
            began_ns = time.time_ns()
            await self._bus.publish([row.record for row in rows])
            await self._outbox.mark(rows, self._lease, keep=self._bus.reads_outboxes)
            for row in rows:
                self._metrics.relayed(schema=self._outbox.schema, topic=row.record.topic)
                self._trace(row.record, began_ns)
        return len(rows)

    def _trace(self, record: Record, began_ns: int) -> None:
        """Tell the trace in which the event was told that it has been sent."""
        told_in = propagate.extract(record.headers)
        if trace.get_current_span(told_in).get_span_context().is_valid:  # else it would be a trace of its own
            self._tracer.start_span(
                f"send {record.topic}",
                context=told_in,
                kind=trace.SpanKind.PRODUCER,
                attributes={"messaging.destination.name": record.topic, "messaging.operation.type": "send"},
                start_time=began_ns,
            ).end()

    async def _round(self) -> None:
        if not self._lease.is_held and not await self._lease.take():
            await asyncio.sleep(self._timing.look_s)
            return
        if not await self.relay_some():
            await self._outbox.written(within_s=self._timing.poll_s)
        if time.monotonic() - self._cleaned_at > _CLEAN_EVERY_S:
            await self._outbox.clean(keep_s=self._timing.keep_s)
            self._cleaned_at = time.monotonic()


def _log_delay(schema: str, error: Exception) -> None:
    if isinstance(error, HunminError) and error.code is ErrorCode.UNAVAILABLE:
        _log.warning("events.relay.delayed", schema=schema, reason=error.message)
    else:
        _log.error("events.relay.failed", schema=schema, exc_info=error)
