"""The port: how events get from outboxes to consumers. direct.py and kafka_bus.py are its adapters."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from hunmin_kit.events.record import Record


@dataclass(frozen=True)
class Delivery:
    """A record at a place of the bus, which no other record ever has."""

    place: str
    record: Record


@dataclass(frozen=True)
class Batch:
    """Deliveries of one lane in their order. Lanes are independent of each other; all of a key is in one."""

    lane: str
    deliveries: Sequence[Delivery]


class Reader(Protocol):
    """What one consumer reads from. What was not finished is read again, here or in another process."""

    async def read(self) -> Sequence[Batch]:
        """Return what comes next in each lane, or nothing after a short while. Batches that were read before and not
        finished come again. Raises UNAVAILABLE while the bus is away."""

    async def finish(self, batch: Batch, handled: int) -> None:
        """Go on behind the first `handled` deliveries of the batch. If the lane is another process's by now, that one
        reads them again."""

    async def lag(self) -> int | None:
        """Return how many records it has yet to finish; None if another process knows."""


class Listener(Protocol):
    """What one process hears of a topic, whoever else hears it."""

    async def hear(self) -> Sequence[Record]:
        """Return what came since the last call, or nothing after a short while. The first call is where it begins.
        Raises UNAVAILABLE while the bus is away, and may lose what comes meanwhile."""


class Bus(Protocol):
    """Takes records from relays and gives them to readers."""

    @property
    def reads_outboxes(self) -> bool:
        """Whether readers read what is relayed in the outbox, which keeps it then."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when all of them are there for good, those of each key in their order. Raises UNAVAILABLE, and then
        some of them may be there, but of a key none before the ones that precede it."""

    def reader(self, consumer: str, topic: str) -> AbstractAsyncContextManager[Reader]:
        """Return a reader for the consumer of that name, which is the same in every process that runs it."""

    def listener(self, topic: str) -> AbstractAsyncContextManager[Listener]:
        """Return what hears, in this process, what is published from now on."""

    async def close(self) -> None:
        """Let go of connections and threads."""
