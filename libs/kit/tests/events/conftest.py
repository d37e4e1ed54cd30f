"""Each test of this folder runs on the direct bus and, where TEST_KAFKA=host:port names a broker, on Kafka."""

import asyncio
import gc
import os
import random
import secrets
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.events import Envelope, Topic
from hunmin_kit.data import Database
from hunmin_kit.testing.postgres import fresh_database
from kit_sample.events import QUICK, Noted, Process, migrate, note
from sqlalchemy.ext.asyncio import AsyncSession

PATIENCE_S = 30.0
# kafka-python leaves sockets of clients that could not connect, or are closed meanwhile, to the garbage collector.
LEFT_SOCKETS = "unclosed <socket"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests on Kafka pass over sockets that kafka-python leaves."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "kafka" in item.name:
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{LEFT_SOCKETS}:ResourceWarning"))


def seeded(seed: object) -> random.Random:
    """Return what makes a schedule that can be repeated."""
    return random.Random(str(seed))  # noqa: S311  # schedules, not secrets


async def eventually(condition: Callable[[], Awaitable[Any]], *, within_s: float = PATIENCE_S) -> Any:
    """Return what `condition` returns, once that is true."""
    async with asyncio.timeout(within_s):
        while not (found := await condition()):  # noqa: ASYNC110  # seen from outside
            await asyncio.sleep(0.02)
    return found


@dataclass(frozen=True)
class Backbone:
    """A fresh database with the schemas `alpha` and `beta`, and a fresh topic of alpha's on a bus."""

    url: str
    topic: Topic[Noted]
    servers: str | None
    opened: list[Database] = field(default_factory=list)

    def alpha(self, **changed: Any) -> Process:
        """Return a process of the service that tells."""
        return Process(self.url, "alpha", self.topic, self.servers, opened=self.opened, **changed)

    def beta(self, **changed: Any) -> Process:
        """Return a process of the service that hears."""
        return Process(self.url, "beta", self.topic, self.servers, opened=self.opened, **changed)

    async def told_of_death(self, beta: Process) -> tuple[str, str, dict[str, str], bytes]:
        """Return the topic, key, headers and content of the first message that tells of a dead letter of beta's.

        A broker has it in the topic; the direct bus has no readers of such topics, and keeps it in beta's outbox.
        """
        if self.servers is not None:
            return await asyncio.to_thread(_first_message, self.servers, beta.topic.dead)
        told = "SELECT topic, key, headers, content FROM event_outbox ORDER BY number"
        topic, key, headers, content = (await beta.fetch(told))[0]
        return topic, key, headers, bytes(content)


def _first_message(servers: str, topic: str) -> tuple[str, str, dict[str, str], bytes]:
    from kafka import KafkaConsumer

    patience_ms = int(PATIENCE_S * 1000)
    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=patience_ms
    )
    message = next(iter(consumer), None)
    consumer.close()
    assert message is not None, f"{topic} is empty"
    headers = {name: value.decode() for name, value in message.headers}
    return message.topic, message.key.decode(), headers, message.value


async def mended(session: AsyncSession, event: Envelope[Noted]) -> None:
    """Handle an event as a release does in which the cause of its death is mended."""
    await note()(session, event.model_copy(update={"data": Noted(value=event.data.value)}))


@contextmanager
def created(topic: Topic[Noted], servers: str | None) -> Iterator[None]:
    """Have a topic and its dead letters' on that broker, if there is one, as long as the block lasts."""
    if servers is None:
        yield
        return
    from hunmin_kit.events.kafka_bus import Cluster, create_topics
    from kafka import KafkaAdminClient

    create_topics(Cluster(servers=servers), [topic], partitions=3, replication=1, keep_s=QUICK.keep_s)
    yield
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.delete_topics([topic.name, topic.dead])
    admin.close()


@pytest.fixture(params=["direct", "kafka"])
def servers(request: pytest.FixtureRequest) -> str | None:
    if request.param == "direct":
        return None
    if "TEST_KAFKA" not in os.environ:
        pytest.skip("needs a broker: set TEST_KAFKA=host:port")
    return os.environ["TEST_KAFKA"]


@pytest.fixture
def topic(servers: str | None) -> Iterator[Topic[Noted]]:
    made: Topic[Noted] = Topic(f"hunmin.alpha.note-{secrets.token_hex(4)}.v1", Noted)
    with created(made, servers):
        yield made


@pytest.fixture
async def backbone(servers: str | None, topic: Topic[Noted]) -> AsyncIterator[Backbone]:
    async with fresh_database() as url:
        await migrate(url)
        made = Backbone(url, topic, servers)
        yield made
        for database in made.opened:
            await database.close()
        if servers is not None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", LEFT_SOCKETS, ResourceWarning)
                gc.collect()  # here, and not in the next test of somebody else
