"""What every process of a service hears of a topic while it runs, beside what one of them handles (consumer.py).

For what a process holds in memory, and could do without hearing: an event is heard once at most. What comes while the
process starts, or while the bus is away, is not heard at all, and nothing of it is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import DataT, Envelope, Topic
from opentelemetry.instrumentation.utils import suppress_instrumentation

from hunmin_kit.events.bus import Bus, Listener
from hunmin_kit.events.record import Unreadable, event_of
from hunmin_kit.events.timing import Backoff, Timing

_log = structlog.get_logger()


@dataclass(frozen=True)
class Hearing(Generic[DataT]):
    """What each process does with an event, at once and without waiting for anything."""

    topic: Topic[DataT]
    hear: Callable[[Envelope[DataT]], None]

    async def run(self, bus: Bus, *, timing: Timing) -> None:
        """Hear until cancelled."""
        backoff = Backoff(timing.retry_s, timing.max_retry_s)
        async with bus.listener(self.topic.name) as listener:
            while True:
                try:
                    await self._hear(listener)
                    backoff.reset()
                except Exception as error:  # the edge: nothing that happens once may end it
                    is_away = isinstance(error, HunminError) and error.code is ErrorCode.UNAVAILABLE
                    _log.warning("events.hearing.delayed", topic=self.topic.name, exc_info=None if is_away else error)
                    await backoff.sleep()

    async def _hear(self, listener: Listener) -> None:
        with suppress_instrumentation():
            records = await listener.hear()
        for record in records:
            try:
                self.hear(event_of(record, self.topic))
            except Unreadable as error:  # a consumer has it as a dead letter
                _log.warning("events.hearing.unreadable", topic=self.topic.name, reason=str(error))
